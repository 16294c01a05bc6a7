import base64
import json
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import xxhash

from components.evaluate.stage import run
from tests.components.gate.finished_run import FinishedRun, readings
from tests.wordmill.training.tiny import write_index
from wordmill.models import checkpoint
from wordmill.models.checkpoint import Checkpoint
from wordmill.pictures.image import PICTURE_KEYS
from wordmill.recipe import frameworks
from wordmill.recipe.sections import Data, Model, Train
from wordmill.shards import loader
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.index import INDEX
from wordmill.store.artifacts import Manifest, read_manifest, to_document
from wordmill.store.storage import Store
from wordmill.text import protocols
from wordmill.text.beam import ctc_beam_search
from wordmill.text.decoding import Reading, codec_of

DATA = Data(train=("t",), val=("v",), charset="lower36", height=8, width=16, channels=3)
MODEL = Model(name="crnn", backbone="compact", neck="bilstm", hidden=16, layers=1)
TRAIN = Train(framework="pytorch", epochs=1, global_batch=16, loss="ctc", optimizer="adamw", lr=1e-3,
              warmup_epochs=0.0, weight_decay=0.0, amp="O0", seed=1)  # fmt: skip
SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"
CLASS = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}
# label, what the recogniser reads, the logit of each character it reads (all others are 0)
SAMPLES = [("Cat!", "cat", 5), ("dog", "dig", 2), ("a b", "ab", 5), ("sun", "moon", 9), ("x", "y", 2)]


class ReadsPixels:
    """A recogniser that reads what the test wrote into a picture: row 0 holds classes, row 1 their logits."""

    def __init__(self, saved: Checkpoint, device: str, amp: str) -> None:
        assert (saved.data, device) == (DATA, "cpu")
        self.precision = f"what {amp} is here"
        self.codec = codec_of(saved.model, saved.data)

    def read(self, images: np.ndarray, beams: int) -> Reading:
        logits = np.zeros((len(images), 16, 37), np.float32)
        for n, image in enumerate(images):
            for t in range(16):
                logits[n, t, image[0, t, 0]] = image[1, t, 0]
        return self.codec.decode(logits) if beams == 1 else ctc_beam_search(logits, self.codec, beams)


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
    return arguments(store, tmp_path)


def arguments(store: Store, folder: Path, expected: int = 5, symbols: str = SYMBOLS) -> dict[str, str]:
    """Return the arguments for a benchmark that the catalogue has so many samples of, and for what was learnt."""
    files = folder / "inputs"
    files.mkdir()
    with ShardWriter(files / "0.lmdb", (8, 16, 3), len(SAMPLES)) as writer:
        for label, text, logit in SAMPLES:
            writer.add(picture(text, logit), label)
    seed = FinishedRun(store=store, folder=files, run_tag="r")
    lost = [{"where": "a.zip, 7.png", "reason": "no picture"}] * (expected - 5)
    facts = {"samples": 5, "quarantined": len(lost), "quarantine": lost}
    index = write_index(files / "0.lmdb")
    shard = {"0.lmdb": (files / "0.lmdb").read_bytes(), INDEX: index.read_bytes()}
    fitting = {key: getattr(DATA, key) for key in PICTURE_KEYS}
    one = seed.manifest("shard", "words", shard, facts, inputs={"reading": {"samples": expected}, "picture": fitting})
    packed = {"datasets": {"words": one.reference}, "contents": {"words": "digest of the samples"},
              "indices": {"words": "index of the samples"}}  # fmt: skip
    combined = seed.manifest("shard", "datasets", {}, packed)
    checkpoint.save(files / "w", Checkpoint(tensors={}, data=DATA, model=MODEL, train=TRAIN, step=1))
    weights = {"model.safetensors": (files / "w").read_bytes()}
    trained = seed.manifest("train", "crnn", weights, {"framework": "pytorch"}, inputs={"symbols": symbols})
    return {"benchmark": "words", "evaluation": '{"protocol": "mindocr"}', "model": write(files / "m", trained),
            "shards": write(files / "s", combined), "device": "cpu", "run_tag": "r",
            "output": str(folder / "out")}  # fmt: skip


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
    # common characters: cat 3, d and g 2, ab 2, n 1, none, of 6 + 6 + 4 + 7 + 2
    assert made.facts["character_precision"] == pytest.approx(2 * 8 / 25)
    assert made.metrics == {
        "words/accuracy": 0.4, "words/1-NED": made.facts["ned"], "words/ECE": made.facts["calibration"]["ece"],
        "words/character_precision": made.facts["character_precision"],
    }  # fmt: skip
    assert made.facts["model"].startswith("train/")
    assert made.facts["precision"] == "what O0 is here"
    rules = {"protocol": "mindocr", "beams": 1, "amp": "O0"}
    assert made.inputs == {"model": made.facts["model"], "content": "digest of the samples", "evaluation": rules,
                           "device": "cpu"}  # fmt: skip
    assert (made.facts["content"], made.facts["dataset"][:6]) == ("digest of the samples", "shard/")
    assert "evaluate words  5/5 images  100.0 %" in capsys.readouterr().out


@pytest.mark.usefixtures("_reads_pixels")
def test_the_facts_say_how_it_reads(store: Store, inputs: dict[str, str]) -> None:
    run(**inputs)
    facts = read_manifest(inputs["output"]).facts
    assert (facts["protocol"], facts["left_out"]) == ("mindocr", {})
    assert facts["changed"] == {"spaces removed": 1, "case folded": 1, "characters deleted": 1}
    assert facts["by_length"] == [
        {"length": 1, "total": 1, "correct": 0},
        {"length": 2, "total": 1, "correct": 1},
        {"length": 3, "total": 3, "correct": 1},
    ]
    assert sum(row["count"] for row in facts["confusion"]) == 1 + 1 + 3  # dog/dig, x/y, sun/moon
    assert {"truth": "x", "read": "y", "count": 1} in facts["confusion"]
    assert {"truth": "o", "read": "i", "count": 1} in facts["confusion"]
    # confidences: dig and y 0.170 in ]2/15, 3/15], cat and ab 0.805 in ]12/15, 13/15], moon 0.996 in the last bin
    bins = facts["calibration"]["bins"]
    assert {number: row["count"] for number, row in enumerate(bins) if row["count"]} == {2: 2, 12: 2, 14: 1}
    assert bins[12]["accuracy"] == 1.0
    assert bins[12]["confidence"] == pytest.approx(confidence(5), abs=1e-6)
    gaps = 2 * (1 - confidence(5)) + 2 * confidence(2) + confidence(9)
    assert facts["calibration"]["ece"] == pytest.approx(gaps / 5, abs=1e-6)


@pytest.mark.usefixtures("_reads_pixels")
def test_the_facts_are_those_that_the_report_reads(store: Store, inputs: dict[str, str]) -> None:
    run(**inputs)
    facts, expected = read_manifest(inputs["output"]).facts, readings(5, 2)
    assert expected.keys() <= facts.keys()
    for name in ("by_length", "confusion"):
        assert facts[name][0].keys() == expected[name][0].keys()
    assert facts["calibration"].keys() == expected["calibration"].keys()
    for found, known in zip(facts["calibration"]["bins"], expected["calibration"]["bins"], strict=True):
        assert found.keys() == known.keys()
        assert (found["low"], found["high"]) == (known["low"], known["high"])


@pytest.mark.usefixtures("_reads_pixels")
def test_a_protocol_may_leave_samples_out(store: Store, inputs: dict[str, str]) -> None:
    run(**{**inputs, "evaluation": '{"protocol": "dtrb"}'})
    made = read_manifest(inputs["output"])
    assert (made.facts["total"], made.facts["correct"]) == (3, 0)  # neither "Cat!" nor "a b"
    assert made.facts["left_out"] == {"character outside the charset": 2}
    assert made.facts["changed"] == {}
    assert sum(row["count"] for row in made.facts["calibration"]["bins"]) == 3
    lines = store.fetch(made.object("predictions.jsonl")).read_text().splitlines()
    assert [json.loads(line)["correct"] for line in lines] == [None, False, None, False, False]


@pytest.mark.usefixtures("_reads_pixels")
def test_another_protocol_or_beam_is_other_work(store: Store, inputs: dict[str, str]) -> None:
    sections = ('{"protocol": "mindocr"}', '{"protocol": "paddleocr"}', '{"protocol": "mindocr", "beams": 3}')
    assert len({run(**{**inputs, "evaluation": section}) for section in sections}) == 3


@pytest.mark.usefixtures("_reads_pixels")
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_batch_does_not_matter(
    store: Store, inputs: dict[str, str], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "AT_ONCE", size)
    run(**inputs)
    made = read_manifest(inputs["output"])
    lines = store.fetch(made.object("predictions.jsonl")).read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2, 3, 4]
    mistakes = json.loads(store.fetch(made.object("mistakes.json")).read_text())
    assert [m["index"] for m in mistakes] == [3, 1, 4]
    assert (made.facts["total"], made.facts["correct"]) == (5, 2)


@pytest.mark.usefixtures("_reads_pixels")
def test_every_prediction_and_the_worst_mistakes_are_kept(store: Store, inputs: dict[str, str]) -> None:
    run(**inputs)
    made = read_manifest(inputs["output"])
    lines = store.fetch(made.object("predictions.jsonl")).read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["cat", "dig", "ab", "moon", "y"]
    first = json.loads(lines[0])
    assert (first["index"], first["truth"], first["correct"]) == (0, "Cat!", True)
    assert first["confidence"] == pytest.approx(confidence(5), abs=1e-6)
    # What the gate pairs by, whoever has packed the picture and in whatever set it stands.
    assert first["picture"] == xxhash.xxh3_64_hexdigest(picture("cat", 5).tobytes())
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
    [
        ({"benchmark": "word"}, "'word' is not among the shards: did you mean 'words'?"),
        ({"device": "gpu"}, "cuda"),
        ({"evaluation": '{"protocol": "paddle"}'}, "mindocr"),
    ],
)
def test_a_wrong_name_is_said(
    inputs: dict[str, str], change: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(**{**inputs, **change})
    assert said in capsys.readouterr().out


@pytest.mark.usefixtures("_reads_pixels")
def test_a_benchmark_that_lost_samples_is_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(**arguments(store, tmp_path, expected=6))
    said = capsys.readouterr().out
    assert "benchmark 'words' (shard/" in said
    assert "expected the catalogue's 6 samples, found 5, with 1 put aside" in said
    assert "a.zip, 7.png: no picture" in said


@pytest.mark.usefixtures("_reads_pixels")
def test_a_charset_other_than_the_one_learnt_is_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(**arguments(store, tmp_path, symbols=SYMBOLS[::-1]))
    said = capsys.readouterr().out
    assert "charset lower36: train/" in said
    assert "not the same in the same order" in said


@pytest.mark.usefixtures("_reads_pixels")
def test_a_label_of_which_nothing_is_left_is_not_read_right_by_reading_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = [("!!!", "", 9), ("  ", "", 9), ("dog", "", 9), ("", "a", 9), ("cat", "cat", 9)]
    monkeypatch.setattr("tests.components.evaluate.test_stage.SAMPLES", unread)
    told = arguments(store, tmp_path)
    run(**told)
    made = read_manifest(told["output"])
    assert (made.facts["total"], made.facts["correct"], made.facts["accuracy"]) == (2, 1, 0.5)
    assert made.facts["left_out"] == {"no character left": 3}
    lines = store.fetch(made.object("predictions.jsonl")).read_text().splitlines()
    assert [json.loads(line)["correct"] for line in lines] == [None, None, False, None, True]


@pytest.mark.usefixtures("_reads_pixels")
def test_a_benchmark_of_empty_labels_alone_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.components.evaluate.test_stage.SAMPLES", [("!", "", 9)] * 5)
    with pytest.raises(SystemExit):
        run(**arguments(store, tmp_path))
    assert "protocol mindocr counts none of 5 samples: left out are 5 no character left" in capsys.readouterr().out


@pytest.mark.usefixtures("_reads_pixels")
def test_a_protocol_that_counts_nothing_is_refused(
    store: Store, inputs: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(protocols.PROTOCOLS, "dtrb", (protocols.Drop("too odd", lambda text, charset: True),))
    with pytest.raises(SystemExit):
        run(**{**inputs, "evaluation": '{"protocol": "dtrb"}'})
    assert "protocol dtrb counts none of 5 samples: left out are 5 too odd" in capsys.readouterr().out
