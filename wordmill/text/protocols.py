"""By whose rules a reading is compared with a label: which samples count, and as which two texts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wordmill.text.charset import Charset, to_ascii

SIMPLIFIED = Path(__file__).resolve().parent / "charsets" / "simplified.tsv"
LONGEST = 25  # characters of a label that DTRB, PARSeq and PaddleOCR still count

# What the published evaluation of FSNS takes for the same (MindSpore's crnn_seq2seq_ocr, eval.py): 31 characters.
FSNS_ALIKE = str.maketrans("ÀàÂâÇçÉéÈèÊêËëÎîÏïÔôÛûÙùÜüŸ():-", "AaAaCcEeEeEeEeIiIiOoUuUuUuY（）： ")  # noqa: RUF001
# Printable ASCII at full width, and the ideographic space.
HALF_WIDTH = {0x3000: " "} | {code + 0xFEE0: chr(code) for code in range(0x21, 0x7F)}


@dataclass(frozen=True)
class Edit:
    """A change of the label before it is compared, and where `both` says so of the reading."""

    reason: str
    change: Callable[[str, Charset], str]
    both: bool = True


@dataclass(frozen=True)
class Drop:
    """A kind of label, as edited so far, whose sample does not count."""

    reason: str
    applies: Callable[[str, Charset], bool]


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """One sample: the two texts that are compared, what was changed of its label, and why it is left out, if it is."""

    prediction: str
    label: str
    changed: tuple[str, ...] = ()
    left_out: str = ""


@cache
def _simplified() -> dict[int, str]:
    rows = SIMPLIFIED.read_text(encoding="utf-8").splitlines()
    return str.maketrans(dict(row.split("\t") for row in rows))


SPACES = Edit("spaces removed", lambda text, _: text.replace(" ", ""))
CASE = Edit("case folded", lambda text, charset: charset.fold(text))
DELETED = Edit("characters deleted", lambda text, charset: charset.clean(text), both=False)
TOO_LONG = Drop(f"longer than {LONGEST} characters", lambda text, _: len(text) > LONGEST)
OUTSIDE = Drop("character outside the charset", lambda text, charset: charset.clean(text) != charset.fold(text))
EMPTY = Drop("no character left", lambda text, _: not text.strip())

# Each protocol is what happens to a sample, in this order. A label that it empties counts in none, though MindOCR,
# DTRB, Fudan and FSNS count it: a recogniser that reads nothing would be right.
PROTOCOLS: dict[str, tuple[Edit | Drop, ...]] = {
    # MindOCR, rec_metrics.py: every other stored sample counts.
    "mindocr": (SPACES, CASE, DELETED),
    # Deep Text Recognition Benchmark (Baek et al. 2019), dataset.py and test.py without --data_filtering_off.
    "dtrb": (TOO_LONG, OUTSIDE, CASE),
    # PARSeq (Bautista and Atienza 2022), strhub/data/dataset.py.
    "parseq": (
        Edit("spaces removed", lambda text, _: "".join(text.split())),
        Edit("written in ASCII", lambda text, _: to_ascii(text), both=False), TOO_LONG, CASE, DELETED,
    ),
    # PaddleOCR, rec_metric.py and label_ops.py. Of a label that cannot be encoded it shows another sample at random
    # once more; here that sample is left out.
    "paddleocr": (TOO_LONG, CASE, DELETED, SPACES),
    # The Chinese benchmark of Fudan University (Chen et al. 2021); characters are simplified one by one, not by words.
    "fudan": (
        Edit("half width", lambda text, _: text.translate(HALF_WIDTH)),
        Edit("simplified", lambda text, _: text.translate(_simplified())),
        Edit("lower case", lambda text, _: text.lower()),
        SPACES,
    ),
    "fsns": (
        Edit("spaces collapsed", lambda text, _: " ".join(text.split())),
        Edit("characters taken for alike", lambda text, _: text.translate(FSNS_ALIKE)),
    ),
}  # fmt: skip


def apply_protocol(protocol: str, prediction: str, label: str, charset: Charset) -> ComparedPair:
    """Put a reading and its label into the form in which the protocol compares them."""
    changed = []
    for step in (*PROTOCOLS[protocol], EMPTY):
        if isinstance(step, Drop):
            if step.applies(label, charset):
                return ComparedPair(prediction=prediction, label=label, left_out=step.reason)
            continue
        before, label = label, step.change(label, charset)
        changed += [step.reason] if label != before else []
        prediction = step.change(prediction, charset) if step.both else prediction
    return ComparedPair(prediction=prediction, label=label, changed=tuple(changed))


def is_correct(protocol: str, prediction: str, label: str, charset: Charset) -> bool | None:
    """Tell whether a word is read without a mistake, as the protocol counts it; None where it leaves it out."""
    found = apply_protocol(protocol, prediction, label, charset)
    return None if found.left_out else found.prediction == found.label
