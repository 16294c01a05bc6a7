"""Weights to start from, fitted to other characters: a class keeps what the weights know of its character.

A letter with an accent starts as the letter without, only rarer; what they know nothing of starts as the mean of all
their characters, which is as unlikely as these are wherever none of them stands. Readings of the old characters stay as
they are. Arrays alone, so that both frameworks start alike.
"""

import unicodedata
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.recipe.sections import Data, Model
from wordmill.text.charset import charset_of
from wordmill.text.decoding import codec_of

# Of each model, the weights that have classes, and the axis that they are on; behind others where it has those too.
CLASSES = {
    "crnn": {"head.weight": 0, "head.bias": 0},
    "rare": {"decoder.generator.weight": 0, "decoder.generator.bias": 0, "decoder.gru.weight_ih": 1},
    "seq2seq": {"decoder.generator.weight": 0, "decoder.generator.bias": 0, "decoder.embedding.weight": 0},
}
FREE = ("max_length",)  # keys of model that no weight depends on
RARER = 3.0  # of a letter that starts as another: what its bias is less, e to its power times as unlikely

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights as a recipe's recogniser takes them, and the characters that they know, learn anew and forget.

    where: what messages call them.
    fresh: of each weight that has classes, which of its numbers are new characters'; it spreads to the weight's shape.
    """

    tensors: Tensors
    kept: str
    new: str
    forgotten: str
    where: str
    fresh: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    def facts(self) -> dict[str, str | int]:
        """Return what a manifest says of it."""
        return {"kept": len(self.kept), "new": self.new, "forgotten": self.forgotten}

    def mixed(self, weights: Tensors, share: float) -> Tensors:
        """Return weights (float32) with a share, 0 to 1, of those that they started from, so that less is forgotten.

        What new characters have learnt stays whole. Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
        """
        mixed = {name: share * self.tensors[name] + (1 - share) * values for name, values in weights.items()}
        whole = {name: np.where(fresh, weights[name], mixed[name]) for name, fresh in self.fresh.items()}
        return mixed | whole


def start_from(saved: Checkpoint, model: Model, data: Data, rule: Literal["same", "union", "new"], where: str) -> Start:
    """Fit weights to a recipe's characters by train.start_charset; ValueError with `where` names what does not fit."""
    for key, value in asdict(model).items():
        if key not in FREE and (found := getattr(saved.model, key)) != value:
            raise ValueError(f"{where}: model.{key}: found {found}, expected the recipe's {value}")
    if saved.data.channels != data.channels:
        raise ValueError(f"{where}: data.channels: found {saved.data.channels}, expected the recipe's {data.channels}")
    old, new = saved.symbols or charset_of(saved.data).symbols, charset_of(data).symbols
    known, wanted = set(old), set(new)
    start = Start(
        tensors=saved.tensors, kept="".join(c for c in new if c in known),
        new="".join(c for c in new if c not in known), forgotten="".join(c for c in old if c not in wanted),
        where=where,
    )  # fmt: skip
    if old == new:
        return start
    _check(start, saved.data.charset, data.charset, rule, where)
    first = codec_of(model, data).FIRST
    places = {symbol: first + number for number, symbol in enumerate(old)}
    taken = [*range(first), *(places.get(symbol, places.get(_without_accent(symbol), -1)) for symbol in new)]
    unknown = np.array([False] * first + [symbol not in known for symbol in new])
    rarer = np.float32(RARER) * (unknown & (np.array(taken) >= 0))
    tensors, fresh = dict(saved.tensors), {}
    for name, axis in CLASSES[model.name].items():
        grown = _moved(tensors[name], axis, len(old) + first, first, taken, f"{where}: {name}")
        tensors[name] = grown - rarer if name.endswith(".bias") else grown
        beside = np.zeros(grown.shape[axis] - len(unknown), np.bool_)
        fresh[name] = np.expand_dims(np.concatenate([beside, unknown]), [i for i in range(grown.ndim) if i != axis])
    return replace(start, tensors=tensors, fresh=fresh)


def _without_accent(symbol: str) -> str:
    """Return the letter that a letter with an accent is made of by Unicode (form NFD), any other character itself."""
    return unicodedata.normalize("NFD", symbol)[0]


def _check(start: Start, old: str, new: str, rule: str, where: str) -> None:
    """Refuse characters that the rule does not allow to change."""
    found = f"{where}: data.charset: found weights for {old}, expected the recipe's {new}"
    if rule == "same":
        raise ValueError(f"{found}, which has {len(start.new)} others, lacks {len(start.forgotten)} or has them in "
                         "another order: train.start_charset: union keeps all that the weights know, new goes by the "
                         "recipe alone")  # fmt: skip
    if rule == "union" and start.forgotten:
        raise ValueError(f"{found}, which lacks {symbols_text(start.forgotten)}: data.charset: {old}+{new} has both, "
                         "and train.start_charset: new forgets them")  # fmt: skip
    if not start.kept:
        raise ValueError(f"{found}, which has none of their characters in common: leave train.start_from out")


def _moved(values: Floats, axis: int, old: int, first: int, taken: list[int], where: str) -> Floats:
    """Return a weight whose last `old` numbers of an axis, its classes, are those that are `taken`, -1: the mean."""
    beside = values.shape[axis] - old
    if beside < 0 or (axis == 0 and beside):
        raise ValueError(f"{where}: found {values.shape[axis]} classes, expected {old}, by the characters of its "
                         "charset: has the charset's file changed?")  # fmt: skip
    turned = np.moveaxis(values, axis, 0)
    classes = turned[beside:]
    mean = classes[first:].mean(0, dtype=np.float64, keepdims=True).astype(np.float32)
    rows = np.concatenate([classes, mean])[taken]  # the last row is the mean
    return np.ascontiguousarray(np.moveaxis(np.concatenate([turned[:beside], rows]), 0, axis))


def symbols_text(symbols: str, most: int = 16) -> str:
    """Return characters for people: the first ones with a blank between, and how many more there are."""
    more = f" and {len(symbols) - most} more" if len(symbols) > most else ""
    return " ".join(c if c.isprintable() and c != " " else f"U+{ord(c):04X}" for c in symbols[:most]) + more
