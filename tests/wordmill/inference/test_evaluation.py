"""A whole data set read by real recognisers of both frameworks, in batches of any size."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.wordmill.models.ms import ms  # isort: skip  # noqa: F401  # before anything imports MindSpore
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN, picture
from wordmill.inference.evaluation import Outcome, facts_of, read_all
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.pt.model import build
from wordmill.models.pt.weights import dump
from wordmill.pictures.image import normalise
from wordmill.recipe.frameworks import twin
from wordmill.recipe.sections import Evaluation
from wordmill.shards import loader
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.loader import ordered_batches
from wordmill.shards.sets import ShardSet
from wordmill.text.decoding import codec_of

SAMPLES = 60
RULES = Evaluation(protocol="mindocr")


@pytest.fixture(scope="module")
def saved() -> Checkpoint:
    """Weights that write different texts: statistics as after training, and no class that is likelier everywhere."""
    torch.manual_seed(1)
    net = build(MODEL, DATA, codec_of(MODEL, DATA).classes).train()
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0  # one pass leaves the batch's own statistics
    images = torch.from_numpy(normalise(np.stack([picture(number) for number in range(64)]), DATA.middle))
    with torch.no_grad():
        net(images)
        net.eval().head.weight *= 20
        net.head.bias -= net(images).mean((0, 1))
    return Checkpoint(tensors=dump(net), data=DATA, model=MODEL, train=TRAIN, step=1)


@pytest.fixture(scope="module")
def shards(saved: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Pictures whose labels are what the recogniser reads, but for every third one; no two classes are as likely."""
    images = np.stack([picture(number) for number in range(2 * SAMPLES)])
    predictor = twin("pytorch", "models.predict").Predictor(saved, "cpu")
    first, second = np.moveaxis(np.sort(predictor(images), axis=2)[:, :, [-1, -2]], 2, 0)
    images = images[(first - second).min(axis=1) > 1e-3][:SAMPLES]
    texts, _ = predictor.read(images)
    assert len(set(texts)) == SAMPLES
    path = tmp_path_factory.mktemp("shards") / "0.lmdb"
    with ShardWriter(path, (32, 100, 1), SAMPLES) as writer:
        for number, (image, text) in enumerate(zip(images, texts, strict=True)):
            writer.add(image, text if number % 3 else f"not{text}")
    return ShardSet.open([path])


@pytest.fixture(scope="module", params=["pytorch", "mindspore"])
def predictor(request: pytest.FixtureRequest, saved: Checkpoint) -> Any:
    return twin(request.param, "models.predict").Predictor(saved, "cpu")


@pytest.fixture(scope="module")
def whole(predictor: Any, shards: ShardSet) -> Outcome:
    assert loader.AT_ONCE == 256
    return read_all(predictor, shards, RULES, "words")


def test_both_frameworks_count_the_same(whole: Outcome) -> None:
    assert [item.correct for item in whole.predictions] == [number % 3 != 0 for number in range(SAMPLES)]


@pytest.mark.parametrize("size", [1, 7])
def test_the_size_of_a_batch_changes_nothing(
    predictor: Any, shards: ShardSet, whole: Outcome, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "AT_ONCE", size)
    found = read_all(predictor, shards, RULES, "words")
    assert found.pairs == whole.pairs
    assert [(item.index, item.correct) for item in found.predictions] == [
        (item.index, item.correct) for item in whole.predictions
    ]
    sure = [[item.confidence for item in outcome.predictions] for outcome in (found, whole)]
    # Kernels for other sizes add up in another order: readings and counts are the same, confidences but for rounding.
    assert np.allclose(*sure, rtol=0, atol=1e-5)
    assert [item.index for item, _ in found.worst[:5]] == [item.index for item, _ in whole.worst[:5]]


def test_a_recipe_may_ask_for_a_beam_search(predictor: Any, shards: ShardSet, whole: Outcome) -> None:
    found = read_all(predictor, shards, Evaluation(protocol="mindocr", beams=4), "words")
    texts, confidences = predictor.read(next(ordered_batches(shards, SAMPLES)).images, 4)
    assert [item.prediction for item in found.predictions] == texts
    assert np.allclose([item.confidence for item in found.predictions], confidences, rtol=0, atol=2e-6)
    assert texts != [item.prediction for item in whole.predictions]


def test_facts_tell_the_calibration_with_the_temperature_and_without() -> None:
    outcome, charset = Outcome(), codec_of(MODEL, DATA).charset
    for truth, confidence in (("a", 0.64), ("a", 0.64), ("b", 0.64), ("b", 0.0)):
        outcome.add(truth, "a", confidence, "mindocr", charset)
    facts = facts_of(outcome, "mindocr", 0.5)
    assert facts["temperature"] == 0.5
    assert facts["calibration"]["ece"] == pytest.approx(abs(2 - 3 * 0.64) / 4)
    assert facts["uncalibrated"]["ece"] == pytest.approx(abs(2 - 3 * 0.8) / 4)
