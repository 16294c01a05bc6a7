import base64
import json
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from components.evaluate.stage import run
from components.recognition import checkpoint, frameworks
from components.recognition.artifacts import Manifest, read_manifest, to_document
from components.recognition.blocks import ShardWriter
from components.recognition.checkpoint import Checkpoint
from components.recognition.recipe import Data, Model, Train
from components.recognition.storage import Store
from tests.finished_run import FinishedRun

DATA = Data(train=("t",), val=("v",), charset="lower36", height=8, width=16, channels=3)
MODEL = Model(name="crnn", backbone="compact", neck="bilstm", hidden=16, layers=1)
TRAIN = Train(framework="pytorch", epochs=1, global_batch=16, optimizer="adamw", lr=1e-3, warmup_epochs=0.0,
              weight_decay=0.0, amp="O0", seed=1)  # fmt: skip
CLASS = {symbol: number for number, symbol in enumerate("0123456789abcdefghijklmnopqrstuvwxyz", start=1)}
# label, what the recogniser reads, the logit of each character it reads (all others are 0)
SAMPLES = [("Cat!", "cat", 5), ("dog", "dig", 2), ("a b", "ab", 5), ("sun", "moon", 9), ("x", "y", 2)]


class ReadsPixels:
    """A recogniser that reads what the test wrote into a picture: row 0 holds classes, row 1 their logits."""

    def __init__(self, saved: Checkpoint, device: str) -> None:
        assert (saved.data, device) == (DATA, "cpu")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(images), 16, 37), np.float32)
        for n, image in enumerate(images):
            for t in range(16):
                logits[n, t, image[0, t, 0]] = image[1, t, 0]
        return logits


def picture(text: str, logit: int) -> np.ndarray:
    image = np.zeros((8, 16, 3), np.uint8)
    image[1] = 9  # a sure blank
    for i, symbol in enumerate(text):
        image[0, 2 * i], image[1, 2 * i] = CLASS[symbol], logit
    image[7, 0] = (255, 0, 7)  # red first: tells RGB from BGR
    return image


@pytest.fixture
def inputs(store: Store, tmp_path: Path) -> dict[str, str]:
    """The arguments of the stage, after a train and a shard stage."""
    files = tmp_path / "inputs"
    files.mkdir()
    with ShardWriter(files / "0.lmdb", (8, 16, 3), len(SAMPLES)) as writer:
        for label, text, logit in SAMPLES:
            writer.add(picture(text, logit), label)
    seed = FinishedRun(store=store, folder=files, run_tag="r")
    facts = {"samples": 5, "shards": [{"object": "0.lmdb", "samples": 5, "blocks": 1}]}
    one = seed.manifest("shard", "words", {"0.lmdb": (files / "0.lmdb").read_bytes()}, facts)
    combined = seed.manifest("shard", "datasets", {}, {"datasets": {"words": one.reference}})
    checkpoint.save(files / "w", Checkpoint(tensors={}, data=DATA, model=MODEL, train=TRAIN, step=1))
    weights = {"model.safetensors": (files / "w").read_bytes()}
    trained = seed.manifest("train", "crnn", weights, {"framework": "pytorch"})
    return {"benchmark": "words", "model": write(files / "m", trained), "shards": write(files / "s", combined),
            "device": "cpu", "run_tag": "r", "output": str(tmp_path / "out")}  # fmt: skip


def write(path: Path, manifest: Manifest) -> str:
    path.write_text(json.dumps(to_document(manifest)))
    return str(path)


@pytest.fixture
def _reads_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "twin", lambda framework, module: SimpleNamespace(Predictor=ReadsPixels))


def confidence(logit: float) -> float:
    """Softmax of one logit among 36 zeros."""
    return math.exp(logit) / (math.exp(logit) + 36)


@pytest.mark.usefixtures("_reads_pixels")
def test_a_benchmark_is_measured(store: Store, inputs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run(**inputs)
    made = read_manifest(inputs["output"])
    assert (made.facts["total"], made.facts["correct"], made.facts["accuracy"]) == (5, 2, 0.4)
    # distances: cat 0, dog/dig 1 of 3, ab 0, sun/moon 3 of 4, x/y 1 of 1
    assert made.facts["ned"] == pytest.approx(1 - (1 / 3 + 3 / 4 + 1) / 5)
    assert made.facts["low"] == pytest.approx(0.1176, abs=5e-5)  # Wilson, worked out for 2 of 5
    assert made.facts["high"] == pytest.approx(0.7693, abs=5e-5)
    assert made.metrics == {"words/accuracy": 0.4, "words/1-NED": made.facts["ned"]}
    assert made.facts["model"].startswith("train/")
    assert made.inputs == {"model": made.facts["model"], "dataset": made.facts["dataset"]}
    assert "evaluate words  5/5 images  100.0 %" in capsys.readouterr().out


@pytest.mark.usefixtures("_reads_pixels")
def test_every_prediction_and_the_worst_mistakes_are_kept(store: Store, inputs: dict[str, str]) -> None:
    run(**inputs)
    made = read_manifest(inputs["output"])
    lines = store.fetch(made.object("predictions.jsonl")).read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["cat", "dig", "ab", "moon", "y"]
    first = json.loads(lines[0])
    assert (first["index"], first["truth"], first["correct"]) == (0, "Cat!", True)
    assert first["confidence"] == pytest.approx(confidence(5), abs=1e-6)
    mistakes = json.loads(store.fetch(made.object("mistakes.json")).read_text())
    # the surest first; dig and y are as sure as each other and keep their order
    assert [(m["index"], m["truth"], m["prediction"]) for m in mistakes] == [
        (3, "sun", "moon"), (1, "dog", "dig"), (4, "x", "y"),
    ]  # fmt: skip
    png = np.frombuffer(base64.b64decode(mistakes[0]["png"]), np.uint8)
    shown = cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.array_equal(shown, picture("moon", 9))


def test_finished_work_is_found_without_a_framework(
    store: Store, inputs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(frameworks, "twin", lambda framework, module: SimpleNamespace(Predictor=ReadsPixels))
        first = run(**inputs)
    monkeypatch.setattr(frameworks, "twin", None)  # calling it would be a TypeError
    assert run(**{**inputs, "run_tag": "r2"}) == first
    assert store.get_json("runs/r2/stages/evaluate.words.json")["found"] is True


@pytest.mark.parametrize(
    ("change", "said"),
    [({"benchmark": "word"}, "'word' is not among the shards: did you mean 'words'?"), ({"device": "gpu"}, "cuda")],
)
def test_a_wrong_name_is_said(
    inputs: dict[str, str], change: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(**{**inputs, **change})
    assert said in capsys.readouterr().out
