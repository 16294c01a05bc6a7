"""The card beside an exported file: all that a program needs to use it, without this project."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.models.ports import CONFIDENCE, INPUT, LOGITS, TOKENS
from wordmill.pictures.image import PADDING, Picture, normalise
from wordmill.recipe.sections import Data, Model
from wordmill.text.charset import Charset
from wordmill.text.decoding import AttentionCodec, Codec, CtcCodec

CARD, REFERENCE = "card.json", "reference.npz"  # the names that they have beside every exported file
ANY = "any"  # the size of batch of a file that takes all
SURE = ("the geometric mean of the probabilities of the text's characters, to the power 1 / decode.temperature; 0 for "
        "an empty text")  # fmt: skip
CODECS: dict[str, type[CtcCodec] | type[AttentionCodec]] = {"ctc": CtcCodec, "attention": AttentionCodec}


def describe_file(
    data: Data, model: Model, charset: Charset, steps: int, *, decoded: bool = False, raw: bool = False,
    least_width: int = 0, temperature: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """Return what to hand to a file, what it gives, and how that reads.

    steps: T of the logits (N, T, classes) at the recipe's width. decoded: the file gives tokens and confidence too.
    raw: it takes bytes and normalises itself. least_width: of the pictures of any width W that it takes, with which T
    grows; 0: it takes the recipe's alone. temperature: of the confidences.
    """
    first = 1 if model.name == "crnn" else AttentionCodec.FIRST
    classes = len(charset.symbols) + first
    counted: int | str = "T" if least_width else steps
    outputs = [{"name": LOGITS, "shape": ["N", counted, classes], "layout": "N, steps, classes", "dtype": "float32"}]
    return {
        "input": _input(data, raw, "W" if least_width else data.width)
        | ({"least_width": least_width} if least_width else {}),
        "preprocessing": _preprocessing(data, raw),
        "output": outputs[0],
        "outputs": [*outputs, *(_decoded(counted) if decoded else [])],
        "decode": {**_decode(model, first), "temperature": temperature, "confidence": SURE},
        "charset": {"name": charset.name, "symbols": charset.symbols},
        "recipe": {"data": dataclasses.asdict(data), "model": dataclasses.asdict(model)},
    }


def _input(data: Data, raw: bool, width: int | str) -> dict[str, Any]:
    """Return the input's name, shape, layout, type, range and colours."""
    colour = "RGB" if data.channels == 3 else "grey"
    if raw:
        return {"name": INPUT, "shape": ["N", data.height, width, data.channels], "layout": "NHWC",
                "dtype": "uint8", "range": [0, 255], "colour": colour}  # fmt: skip
    return {"name": INPUT, "shape": ["N", data.channels, data.height, width], "layout": "NCHW",
            "dtype": "float32", "range": [-1.0, (255 - data.middle) / data.middle], "colour": colour}  # fmt: skip


def _preprocessing(data: Data, raw: bool) -> dict[str, Any]:
    """Return what becomes of a decoded picture of any size, step by step, before the file takes it."""
    turned = "a picture over twice as high as wide is turned a quarter to the left"
    kept = "resize to the input's height, width in proportion, rounded up and at most the input's; pad on the right"
    stretched = "resize to the input's height and width, whatever the ratio of the sides"
    steps = [turned] if data.turn_tall else []
    steps.append(stretched if data.fit == "stretch" else kept)
    if not raw:
        steps.append("(x - middle) / middle, as float32 in the input's layout")
    return {"steps": steps, "turn_tall": data.turn_tall, "fit": data.fit, "interpolation": data.interpolation,
            "padding": PADDING.get(data.fit), "middle": data.middle}  # fmt: skip


def _decoded(steps: int | str) -> list[dict[str, Any]]:
    """Return the outputs that a file has which decodes: the reading is in them already."""
    meaning = ("the class of each step's character, 0 where a step has none: the text is, of all that are not 0, "
               "in order, charset.symbols[class - decode.first]")  # fmt: skip
    return [
        {"name": TOKENS, "shape": ["N", steps], "layout": "N, steps", "dtype": "int64", "meaning": meaning},
        {"name": CONFIDENCE, "shape": ["N"], "layout": "N", "dtype": "float32", "range": [0, 1],
         "meaning": SURE},
    ]  # fmt: skip


def _decode(model: Model, first: int) -> dict[str, Any]:
    """Return how logits read: class `first` is the charset's first character."""
    if model.name == "crnn":
        return {"rule": "ctc", "search": "greedy", "blank": CtcCodec.BLANK, "first": first,
                "meaning": "the likeliest class of each step, equal neighbours as one, blanks left out"}  # fmt: skip
    return {"rule": "attention", "search": "greedy", "go": AttentionCodec.GO, "stop": AttentionCodec.STOP,
            "first": first, "meaning": "the likeliest class of each step up to the first stop, go left out; "
                                       "empty where there is no stop"}  # fmt: skip


def prepared(images: Picture, card: dict[str, Any]) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Return fitted pictures (N, H, W, C) uint8 as the card's file takes them: normalised, or as they are.

    ValueError for a width that the file does not take: of some runtimes it ends the process.
    """
    width, told = images.shape[2], card["input"]
    taken = told["shape"][told["layout"].index("W")]
    if isinstance(taken, int) and width != taken:
        raise ValueError(f"pictures of width {width}, expected {taken}: the file takes no other")
    if width < told.get("least_width", 1):
        raise ValueError(f"pictures of width {width}, expected at least {told['least_width']}: the file makes a column "
                         "of so many pixels")  # fmt: skip
    return images if card["input"]["dtype"] == "uint8" else normalise(images, card["preprocessing"]["middle"])


def codec_of_card(card: dict[str, Any]) -> Codec:
    """Return the codec by which the logits of the card's file read; a card of before temperatures has 1."""
    decode = card["decode"]
    return CODECS[decode["rule"]](charset=Charset(**card["charset"]), temperature=decode.get("temperature", 1.0))
