from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from components.smoke.parity import Agreement, agreement, logit_tolerance
from tests.components.train.trained import DATA, MODEL
from wordmill.inference import card
from wordmill.text.charset import load_charset
from wordmill.text.decoding import codec_of

CODEC = codec_of(MODEL, DATA)
CARD = card.describe_file(DATA, MODEL, CODEC.charset, 4, decoded=True)


def logits_of(texts: list[str]) -> NDArray[np.float32]:
    """Return logits (N, 4, 37) that read as the texts of at most two different characters."""
    logits = np.zeros((len(texts), 4, CODEC.classes), dtype=np.float32)
    for row, text in zip(logits, texts, strict=True):
        row[:, 0] = 1
        for place, number in enumerate(CODEC.encode(text)):
            row[place, number] = 5
    return logits


def compared(expected: NDArray[np.float32], **outputs: NDArray[np.float32]) -> Agreement:
    return agreement(outputs, CARD, expected, CODEC, "here")


def test_agreement_counts_equal_texts_and_the_largest_difference() -> None:
    expected = logits_of(["a", "bc", "x"])
    found = logits_of(["a", "bd", "x"])
    found[0, 3, 5] += 0.25
    assert compared(expected, logits=found) == Agreement(
        samples=3, texts_equal=2, max_logit_difference=5.0, max_confidence_difference=0.0
    )
    moved = compared(expected, logits=expected + np.float32(0.5))
    assert (moved.texts_equal, moved.max_logit_difference) == (3, 0.5)


def test_a_file_that_decodes_by_itself_must_be_right_in_that_too() -> None:
    expected = logits_of(["a", "bc"])
    # Class 11 is a; the confidence is the mean probability of the characters: e^5 / (e^5 + e + 35) each.
    tokens = np.array([[11, 0, 0, 0], [12, 13, 0, 0]])
    sure = np.exp(5) / (np.exp(5) + np.exp(1) + 35)
    right = compared(expected, logits=expected, tokens=tokens, confidence=np.array([sure, sure]))
    assert (right.texts_equal, round(right.max_confidence_difference, 6)) == (2, 0.0)
    for wrong in ([11, 11, 0, 0], [0, 0, 0, 0], [99, 0, 0, 0]):
        spoilt = np.array([wrong, tokens[1]])
        found = compared(expected, logits=expected, tokens=spoilt, confidence=np.array([0.0, sure]))
        assert (found.texts_equal, round(found.max_confidence_difference, 6)) == (1, 0.0)
    unsure = compared(expected, logits=expected, tokens=tokens, confidence=np.array([sure, sure - 0.25]))
    assert (unsure.texts_equal, round(unsure.max_confidence_difference, 6)) == (2, 0.25)


def test_a_card_of_more_characters_than_the_network_has_classes_is_an_error() -> None:
    expected = logits_of(["a"])
    longer = CARD | {"charset": {"name": "english94", "symbols": load_charset("english94").symbols}}
    with pytest.raises(RuntimeError, match="here: the card's charset makes 95 classes, expected 37"):
        agreement({"logits": expected}, longer, expected, CODEC, "here")


def test_lower_precision_may_be_further_off_and_fp32_only_as_far_as_the_recipe_says() -> None:
    expected = logits_of(["a"])  # up to 5
    assert [logit_tolerance(kind, 1e-3, expected) for kind in ("fp32", "fp16", "int8")] == [1e-3, 0.05, 1.0]
    assert logit_tolerance("fp16", 0.25, expected) == 0.25


def test_texts_logits_and_confidences_all_must_be_within_tolerance() -> None:
    found = Agreement(samples=20, texts_equal=18, max_logit_difference=0.5, max_confidence_difference=0.25)
    assert found.within(0.9, 0.5)
    assert not found.within(1.0, 0.5)
    assert not found.within(0.9, 0.49)
    assert not replace(found, max_confidence_difference=0.51).within(0.9, 0.5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :, :36], "here: logits have 36 classes, charset lower36 needs 37"),
        (lambda x: x[:, :3], r"here: logits have shape \(1, 3, 37\), the trained recogniser's \(1, 4, 37\)"),
        (lambda x: np.where(np.arange(37) == 1, np.nan, x), "here: 4 of 148 logits are not finite"),
    ],
)
def test_what_is_no_set_of_logits_is_an_error(spoil: object, message: str) -> None:
    expected = logits_of(["a"])
    assert callable(spoil)
    with pytest.raises(RuntimeError, match=message):
        compared(expected, logits=spoil(expected))
