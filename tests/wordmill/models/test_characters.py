"""Weights fitted to other characters: each class of a character keeps its numbers, whatever its place becomes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.models.characters import RARER, Start, start_from, symbols_text
from wordmill.models.checkpoint import Checkpoint
from wordmill.recipe.sections import Data, Model

RARE = dataclasses.replace(MODEL, name="rare", max_length=5, decoder_hidden=2)


@pytest.fixture
def charsets(tmp_path: Path) -> dict[str, Data]:
    """Return data sections whose charsets have these characters."""
    sections = {}
    for symbols in ("ab", "bac", "bàca", "ba", "xy", "bc"):
        path = tmp_path / f"{symbols}.txt"
        path.write_text("\n".join(symbols), encoding="utf-8")
        sections[symbols] = dataclasses.replace(DATA, charset=str(path))
    return sections


def weights(model: Model, data: Data) -> Checkpoint:
    """Weights of a recogniser that knows a and b: numbers by class, two features (channels of the encoder) each."""
    head = np.float32([[0, 1], [10, 11], [20, 21]])  # blank, a, b
    if model.name == "crnn":
        tensors = {"head.weight": head, "head.bias": np.float32([-1, 2, 4]), "backbone.w": np.float32([7])}
    else:
        rows = np.float32([[0, 1], [5, 6], [10, 11], [20, 21]])  # GO, STOP, a, b
        tensors = {
            "decoder.generator.weight": rows, "decoder.generator.bias": np.float32([-1, -2, 2, 4]),
            "decoder.gru.weight_ih": np.float32([[100, 101, 0, 1, 2, 4], [200, 201, 10, 11, 12, 16]]),
        }  # fmt: skip
    return Checkpoint(tensors=tensors, data=data, model=model, train=TRAIN, step=1, symbols="ab")


def begun(charsets: dict[str, Data], symbols: str, rule: str, model: Model = MODEL) -> Start:
    return start_from(weights(model, charsets["ab"]), model, charsets[symbols], rule, "here")  # type: ignore[arg-type]


def test_a_head_of_ctc_grows_by_new_characters_and_follows_those_that_it_knows(charsets: dict[str, Data]) -> None:
    start = begun(charsets, "bac", "union")
    assert start.facts() == {"kept": 2, "new": "c", "forgotten": ""}
    assert start.tensors["head.weight"].tolist() == [[0, 1], [20, 21], [10, 11], [15, 16]]  # blank, b, a, mean of both
    assert start.tensors["head.bias"].tolist() == [-1, 4, 2, 3]
    assert start.tensors["backbone.w"].tolist() == [7]


def test_a_decoder_grows_where_it_writes_and_where_it_reads_what_it_wrote(charsets: dict[str, Data]) -> None:
    tensors = begun(charsets, "bac", "union", RARE).tensors
    assert tensors["decoder.generator.weight"].tolist() == [[0, 1], [5, 6], [20, 21], [10, 11], [15, 16]]
    assert tensors["decoder.generator.bias"].tolist() == [-1, -2, 4, 2, 3]
    expected = [[100, 101, 0, 1, 4, 2, 3], [200, 201, 10, 11, 16, 12, 14]]  # two features, GO, STOP, b, a, mean
    assert tensors["decoder.gru.weight_ih"].tolist() == expected
    assert tensors["decoder.gru.weight_ih"].flags["C_CONTIGUOUS"]


def test_a_letter_with_an_accent_starts_as_the_letter_without_but_is_never_read_for_it(
    charsets: dict[str, Data],
) -> None:
    start = begun(charsets, "bàca", "union")
    assert start.facts() == {"kept": 2, "new": "àc", "forgotten": ""}
    assert start.tensors["head.weight"].tolist() == [[0, 1], [20, 21], [10, 11], [15, 16], [10, 11]]
    assert start.tensors["head.bias"].tolist() == [-1, 4, 2 - RARER, 3, 2]
    tensors = begun(charsets, "bàca", "union", RARE).tensors
    assert tensors["decoder.generator.bias"].tolist() == [-1, -2, 4, 2 - RARER, 3, 2]
    assert tensors["decoder.gru.weight_ih"][0].tolist() == [100, 101, 0, 1, 4, 2, 3, 2]


@pytest.mark.parametrize("model", [MODEL, RARE], ids=["crnn", "rare"])
def test_weights_keep_a_share_of_what_they_started_from_but_for_what_new_characters_have_learnt(
    model: Model, charsets: dict[str, Data]
) -> None:
    start = begun(charsets, "bac", "union", model)
    learnt = {name: values + 8 for name, values in start.tensors.items()}
    mixed = start.mixed(learnt, 0.25)
    moved = {name: mixed[name] - values for name, values in start.tensors.items()}
    if model is MODEL:  # c is the last
        assert moved["head.weight"].tolist() == [[6, 6], [6, 6], [6, 6], [8, 8]]
        assert moved["head.bias"].tolist() == [6, 6, 6, 8]
        assert moved["backbone.w"].tolist() == [6]
    else:  # before the classes that it has written a cell reads two features
        assert moved["decoder.gru.weight_ih"].tolist() == [[6, 6, 6, 6, 6, 6, 8]] * 2
    assert {values.dtype for values in mixed.values()} == {np.dtype(np.float32)}


def test_an_embedding_of_classes_is_mapped_as_the_head_is(charsets: dict[str, Data]) -> None:
    model = dataclasses.replace(RARE, name="seq2seq", max_length=0)
    saved = weights(RARE, charsets["ab"])
    tensors = {name: saved.tensors[name] for name in ("decoder.generator.weight", "decoder.generator.bias")}
    tensors["decoder.embedding.weight"] = np.float32([[1], [2], [3], [7]])
    saved = dataclasses.replace(saved, model=model, tensors=tensors)
    start = start_from(saved, model, charsets["bac"], "union", "here")
    assert start.tensors["decoder.embedding.weight"].tolist() == [[1], [2], [7], [3], [5]]


def test_characters_are_forgotten_only_where_that_is_asked_for(charsets: dict[str, Data]) -> None:
    start = begun(charsets, "bc", "new")
    assert start.facts() == {"kept": 1, "new": "c", "forgotten": "a"}
    assert start.tensors["head.weight"].tolist() == [[0, 1], [20, 21], [15, 16]]
    with pytest.raises(ValueError, match=r"here: data.charset: .* lacks a: data.charset: .*ab.txt\+.*bc.txt has both"):
        begun(charsets, "bc", "union")


def test_equal_characters_need_no_rule_and_others_do(charsets: dict[str, Data]) -> None:
    assert begun(charsets, "ab", "same").facts() == {"kept": 2, "new": "", "forgotten": ""}
    with pytest.raises(ValueError, match="here: data.charset: .* in another order: train.start_charset: union keeps"):
        begun(charsets, "ba", "same")


def test_a_start_that_fits_nothing_is_named_by_its_first_key(charsets: dict[str, Data]) -> None:
    with pytest.raises(ValueError, match="which has none of their characters in common"):
        begun(charsets, "xy", "new")
    saved, other = weights(MODEL, charsets["ab"]), dataclasses.replace(MODEL, backbone="vgg7")
    with pytest.raises(ValueError, match="here: model.backbone: found compact, expected the recipe's vgg7"):
        start_from(saved, other, charsets["ab"], "same", "here")
    colour = dataclasses.replace(charsets["ab"], channels=3)
    with pytest.raises(ValueError, match="here: data.channels: found 1, expected the recipe's 3"):
        start_from(saved, MODEL, colour, "same", "here")
    changed = dataclasses.replace(saved, symbols="abd")  # of a file that has another character since
    with pytest.raises(ValueError, match=r"here: head.weight: found 3 classes, expected 4.* charset's file changed"):
        start_from(changed, MODEL, charsets["bac"], "new", "here")


def test_characters_are_shown_apart_and_those_that_nobody_sees_by_their_code() -> None:
    assert symbols_text("ä \u200dß", 3) == "ä U+0020 U+200D and 1 more"
