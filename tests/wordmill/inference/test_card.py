import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from wordmill.inference.card import codec_of_card, describe_file, prepared
from wordmill.recipe.sections import Data, Model
from wordmill.text.charset import Charset
from wordmill.text.decoding import CtcCodec

DATA = Data(train=("a",), val=("b",), charset="abc", height=32, width=100, channels=3, middle=127.0)
CRNN = Model(name="crnn", backbone="compact", neck="bilstm", hidden=16, layers=1)
RARE = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=5, decoder_hidden=16)
ABC = Charset(name="abc", symbols="abc")


def test_a_ctc_recognisers_card_tells_the_input_the_logits_and_how_they_read() -> None:
    card = describe_file(DATA, CRNN, ABC, 25)
    assert card["input"] == {"name": "images", "shape": ["N", 3, 32, 100], "layout": "NCHW", "dtype": "float32",
                             "range": [-1.0, 128 / 127], "colour": "RGB"}  # fmt: skip
    assert card["outputs"] == [
        {"name": "logits", "shape": ["N", 25, 4], "layout": "N, steps, classes", "dtype": "float32"}
    ]
    assert card["output"] == card["outputs"][0]
    assert {"rule": "ctc", "blank": 0, "first": 1}.items() <= card["decode"].items()
    assert card["charset"] == {"name": "abc", "symbols": "abc"}
    assert card["preprocessing"] == {
        "steps": [
            "resize to the input's height and width, whatever the ratio of the sides",
            "(x - middle) / middle, as float32 in the input's layout",
        ],
        "turn_tall": False, "fit": "stretch", "interpolation": "bilinear", "padding": None, "middle": 127.0,
    }  # fmt: skip
    assert card["recipe"] == {"data": dataclasses.asdict(DATA), "model": dataclasses.asdict(CRNN)}
    json.dumps(card)


def test_an_attention_recogniser_has_go_and_stop_before_its_characters() -> None:
    card = describe_file(DATA, RARE, ABC, 6)
    assert card["output"]["shape"] == ["N", 6, 5]
    assert {"rule": "attention", "go": 0, "stop": 1, "first": 2}.items() <= card["decode"].items()


def test_a_file_that_decodes_tells_its_tokens_and_confidence() -> None:
    ports = describe_file(DATA, CRNN, ABC, 25, decoded=True)["outputs"]
    assert [(port["name"], port["shape"], port["dtype"]) for port in ports] == [
        ("logits", ["N", 25, 4], "float32"), ("tokens", ["N", 25], "int64"), ("confidence", ["N"], "float32")
    ]  # fmt: skip


def test_a_file_that_normalises_takes_bytes_and_one_of_any_width_says_so() -> None:
    raw = describe_file(DATA, CRNN, ABC, 25, raw=True)
    assert raw["input"] == {"name": "images", "shape": ["N", 32, 100, 3], "layout": "NHWC", "dtype": "uint8",
                            "range": [0, 255], "colour": "RGB"}  # fmt: skip
    assert len(raw["preprocessing"]["steps"]) == 1
    wide = describe_file(DATA, CRNN, ABC, 25, decoded=True, least_width=4)
    assert wide["input"]["shape"] == ["N", 3, 32, "W"]
    assert wide["input"]["least_width"] == 4
    assert [port["shape"] for port in wide["outputs"]] == [["N", "T", 4], ["N", "T"], ["N"]]


@pytest.mark.parametrize(
    ("options", "width", "message"),
    [
        ({}, 101, "pictures of width 101, expected 100: the file takes no other"),
        ({"raw": True}, 99, "pictures of width 99, expected 100"),
        ({"least_width": 4}, 3, "pictures of width 3, expected at least 4: the file makes a column of so many pixels"),
    ],
)
def test_a_width_that_a_file_does_not_take_is_refused(options: dict[str, Any], width: int, message: str) -> None:
    card = describe_file(DATA, CRNN, ABC, 25, **options)
    with pytest.raises(ValueError, match=message):
        prepared(np.zeros((2, 32, width, 3), np.uint8), card)


def test_pictures_are_given_to_a_file_as_its_card_says() -> None:
    pictures = np.full((2, 32, 4, 3), 254, np.uint8)
    found = prepared(pictures, describe_file(DATA, CRNN, ABC, 25, least_width=4))
    assert (found.shape, found.dtype, found[0, 0, 0, 0]) == ((2, 3, 32, 4), np.float32, 1.0)
    pictures = np.zeros((1, 32, 100, 3), np.uint8)
    assert prepared(pictures, describe_file(DATA, CRNN, ABC, 25, raw=True)) is pictures


def test_padded_and_turned_pictures_are_described_in_their_order() -> None:
    data = dataclasses.replace(DATA, fit="pad_grey", turn_tall=True, channels=1)
    card = describe_file(data, CRNN, ABC, 25)
    assert card["input"]["colour"] == "grey"
    turned, padded, normalised = card["preprocessing"]["steps"]
    assert (turned.split()[-1], padded[-12:], normalised[0]) == ("left", "on the right", "(")
    assert card["preprocessing"]["padding"] == 127


def test_a_card_tells_the_temperature_of_confidences_and_one_without_has_1() -> None:
    card = describe_file(DATA, CRNN, ABC, 25, temperature=0.5)
    assert codec_of_card(card) == CtcCodec(charset=ABC, temperature=0.5)
    del card["decode"]["temperature"]
    assert codec_of_card(card) == CtcCodec(charset=ABC)
