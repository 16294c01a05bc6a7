"""Which samples a training set goes without, and the text that is learnt of the others: five published policies."""

from typing import Literal, NamedTuple

from wordmill.text.charset import Charset, to_ascii


class Verdict(NamedTuple):
    """What a policy makes of a label: the text that is learnt, why its sample is dropped (or ""), and what changed."""

    label: str
    reason: str = ""
    changed: tuple[str, ...] = ()


class Policy(NamedTuple):
    """What a label costs that is too long, that has characters outside the charset, or of which nothing is left."""

    too_long: Literal["keep", "drop", "empty"]  # empty: the sample stays, its text goes
    odd: Literal["drop", "delete"]  # the sample, or the characters alone
    nothing: Literal["keep", "drop"]
    ascii: bool = False  # white space is removed and the rest written in ASCII before anything else


# "keep" and "empty" keep the sample in the shards. Whether it can be learnt is decided before training (targets.py): a
# text that is empty, or that the recogniser has too few steps for, is left out there, whereas MindOCR trains on it as a
# picture of nothing and DTRB, without its filter, ends with an error.
POLICIES = {
    # MindOCR, rec_lmdb_dataset.py and rec_transforms.py.
    "mindocr": Policy(too_long="empty", odd="delete", nothing="keep"),
    # Deep Text Recognition Benchmark (Baek et al. 2019), dataset.py; without and with --data_filtering_off. It puts the
    # charset into a regular expression, to which '9-a' is a range and a backslash nothing; here they are characters.
    "dtrb": Policy(too_long="drop", odd="drop", nothing="keep"),
    "dtrb_unfiltered": Policy(too_long="keep", odd="delete", nothing="keep"),
    # PARSeq (Bautista and Atienza 2022), strhub/data/dataset.py.
    "parseq": Policy(too_long="drop", odd="delete", nothing="drop", ascii=True),
    # PaddleOCR, label_ops.py and simple_dataset.py. In place of a dropped sample it shows another one, at random, once
    # more; here the set is that much smaller, so that an epoch shows every sample once.
    "paddleocr": Policy(too_long="drop", odd="delete", nothing="drop"),
}
FOLDED = ("case folded",)


def judge(policy: str, label: str, charset: Charset, longest: int) -> Verdict:
    """Apply a policy to a label; `longest` is in characters, 0: any length. Reasons and changes are for counting."""
    rules = POLICIES[policy]
    text = to_ascii("".join(label.split())) if rules.ascii else label
    folded = charset.fold(text)
    too_long = 0 < longest < len(text)
    inside = charset.holds(folded)
    if inside and folded and not too_long and text == label:  # nearly every word
        return Verdict(folded, "", FOLDED if folded != text else ())
    if too_long and rules.too_long == "drop":
        return Verdict(label, f"longer than {longest} characters")
    if not inside and rules.odd == "drop":
        return Verdict(label, "character outside the charset")
    learnt = "" if too_long and rules.too_long == "empty" else charset.clean(text)
    if not learnt and rules.nothing == "drop":
        return Verdict(label, "no character left")
    changes = {"written in ASCII without spaces": text != label, "case folded": folded != text,
               "characters deleted": not inside and bool(learnt), "nothing left to learn": not learnt}  # fmt: skip
    return Verdict(learnt, "", tuple(name for name, is_so in changes.items() if is_so))


def lacking(policy: str, label: str, charset: Charset) -> str:
    """Return the characters for which a label is dropped or shortened, each once: those outside the charset."""
    return charset.outside(to_ascii("".join(label.split())) if POLICIES[policy].ascii else label)
