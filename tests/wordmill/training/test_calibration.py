from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.wordmill.training.tiny import TRAIN, picture, write_shard
from wordmill.shards.sets import ShardSet
from wordmill.text.charset import load_charset
from wordmill.text.decoding import CtcCodec
from wordmill.training import calibration
from wordmill.training.calibration import calibrate

CODEC = CtcCodec(charset=load_charset("lower36"))
LABELS = ("a", "b", "?")  # the last is empty by MindOCR's protocol


def predict(images: np.ndarray) -> np.ndarray:
    """Read the picture of `a` as a, of `b` as a too, both at 0.81, of the other as nothing: logits (N, 1, 37)."""
    nothing = (images == picture(2)).all((1, 2, 3))
    odds = np.full((len(images), 1, 37), 0.19 / 36)
    odds[np.arange(len(images)), 0, np.where(nothing, 0, CODEC.encode("a")[0])] = 0.81
    return np.log(odds).astype(np.float32)


def context(path: Path, samples: int) -> Any:
    shards = ShardSet.open([write_shard(path / "shard", samples, LABELS)])
    return SimpleNamespace(val_set=shards, codec=CODEC, job=SimpleNamespace(train=TRAIN))


def test_the_temperature_is_that_of_what_is_read_of_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = list[int]()
    found = calibrate(context(tmp_path, 300), predict, lambda: beats.append(1))
    assert found.temperature == pytest.approx(0.304, abs=6e-5)  # half is right: 0.81 ** (1 / t) = 0.5
    assert found.confidences in ({"0.00": 100, "0.50": 200}, {"0.00": 100, "0.45": 200})  # at 0.5, rounded
    assert len(beats) == 2
    monkeypatch.setattr(calibration, "CALIBRATED", 100)
    assert calibrate(context(tmp_path, 300), predict, lambda: None).temperature == 1.0  # every third: all a, and right
