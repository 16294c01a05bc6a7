import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components.smoke import ascend_doubles
from tests.components.train.trained import DATA, MODEL, lively
from tests.wordmill.training.tiny import picture, write_index
from wordmill.inference import card
from wordmill.inference.offline import main, read_result
from wordmill.models.pt.export import export_onnx
from wordmill.models.pt.predict import Predictor
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.index import INDEX
from wordmill.store.artifacts import Manifest, to_document
from wordmill.store.storage import Store
from wordmill.text.decoding import codec_of

SAMPLES, RIGHT, BATCH = 21, 13, 8  # two batches of 8, and one of 5 that is filled up
PROTOCOL = ["--protocol", "mindocr"]
CARD = card.describe_file(DATA, MODEL, codec_of(MODEL, DATA).charset, 25)


def write_card(path: Path, **changed: Any) -> Path:
    path.write_text(json.dumps(CARD | changed), encoding="utf-8")
    return path


def write_samples(path: Path) -> Path:
    """Write a shard of which the recogniser of seed 11 reads the first 13 as they are labelled, the rest not."""
    images = np.stack([picture(number) for number in range(SAMPLES)])
    texts, _ = Predictor(lively(11), "cpu").read(images)
    assert len(set(texts)) == SAMPLES  # it tells pictures apart: a result in another's place is wrong
    with ShardWriter(path, (32, 100, 1), SAMPLES) as writer:
        for number, (image, text) in enumerate(zip(images, texts, strict=True)):
            writer.add(image, text if number < RIGHT else f"{text}x")
    return path


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    folder = tmp_path / "packed"
    main(["pack", str(folder), str(write_samples(tmp_path / "a.shard")), "--card", str(write_card(tmp_path / "c"))])
    return folder


@pytest.mark.parametrize(
    ("batch", "options", "mode"), [(BATCH, [], "static"), (None, ["--gears"], "dymbatch")], ids=["fixed", "gears"]
)
def test_samples_become_an_accuracy_by_way_of_the_chip_with_a_last_batch_that_is_not_full(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    batch: int | None, options: list[str], mode: str,
) -> None:  # fmt: skip
    log = ascend_doubles.install(monkeypatch, tmp_path)
    model = tmp_path / "model.om"
    export_onnx(lively(11), model, batch=batch, decoded=False)
    main(["command", str(packed), "--model", str(model), "--batch", str(BATCH), *options, "--run"])
    assert log.read_text().splitlines() == ["open 0 model.om", *3 * [f"infer {mode} ({BATCH}, 1, 32, 100)"]]
    capsys.readouterr()
    main(["score", str(packed), *PROTOCOL])
    # 13 of 21, and the score interval of Wilson for that
    assert capsys.readouterr().out.startswith(
        "61.90 % word accuracy, 13 of 21 by protocol mindocr (95 %: 40.88 to 79.25)"
    )
    written = [json.loads(line) for line in (packed / "predictions.jsonl").read_text().splitlines()]
    assert [row["correct"] for row in written] == [True] * RIGHT + [False] * (SAMPLES - RIGHT)
    assert [row["index"] for row in written] == list(range(SAMPLES))
    assert json.loads((packed / "score.json").read_text())["correct"] == RIGHT


def test_the_command_is_that_of_the_ascend_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["command", "/data", "--model", "crnn b16.om", "--batch", "16", "--device", "2"])
    assert shlex.split(capsys.readouterr().out) == [
        "python3", "-m", "ais_bench", "--model=crnn b16.om", "--input=/data/inputs", "--output=/data",
        "--output_dirname=result", "--outfmt=BIN", "--device=2", "--batchsize=16", "--output_batchsize_axis=0",
    ]  # fmt: skip


def test_packed_samples_are_what_the_card_asks_for(packed: Path, tmp_path: Path) -> None:
    expected = (picture(3)[None].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
    found = np.fromfile(packed / "inputs" / "00000003.bin", dtype=np.float32)
    np.testing.assert_array_equal(found.reshape(1, 1, 32, 100), expected)
    raw = card.describe_file(DATA, MODEL, codec_of(MODEL, DATA).charset, 25, raw=True)
    path = write_card(tmp_path / "raw", **raw)
    main(["pack", str(tmp_path / "bytes"), str(tmp_path / "a.shard"), "--card", str(path)])
    found = np.fromfile(tmp_path / "bytes" / "inputs" / "00000003.bin", dtype=np.uint8)
    np.testing.assert_array_equal(found.reshape(32, 100, 1), picture(3))


def test_a_data_set_is_packed_by_its_manifest_in_the_store(store: Store, tmp_path: Path) -> None:
    index = write_index(write_samples(tmp_path / "a.shard"))
    objects = store.put_file(tmp_path / "a.shard", "a.shard"), store.put_file(index, INDEX)
    made = Manifest(stage="shard", name="words", key="0" * 32, inputs={}, git_commit="", objects=objects)
    store.put_json(f"manifests/{made.reference}.json", to_document(made))
    path = write_card(tmp_path / "c")
    main(["pack", str(tmp_path / "packed"), made.reference, "--card", str(path)])
    assert len(list((tmp_path / "packed" / "inputs").iterdir())) == SAMPLES
    with pytest.raises(SystemExit, match=f"error: shard/{'1' * 32} is not whole in bucket"):
        main(["pack", str(tmp_path / "other"), f"shard/{'1' * 32}", "--card", str(path)])


def write_labels(folder: Path, labels: list[str]) -> list[str]:
    """Write a packed folder without samples and return their names."""
    folder.mkdir()
    write_card(folder / "card.json")
    names = [f"{number:08d}" for number in range(len(labels))]
    rows = [{"name": name, "label": label} for name, label in zip(names, labels, strict=True)]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "result").mkdir()
    return names


def logits_of(text: str) -> np.ndarray:
    """Return logits (25, 37) that read as a text of no equal neighbours: class 1 is 0, 11 is a."""
    logits = np.full((25, 37), -4, dtype=np.float32)
    numbers = ["0123456789abcdefghijklmnopqrstuvwxyz".index(character) + 1 for character in text]
    for step, number in enumerate(numbers + [0] * (25 - len(text))):
        logits[step, number] = 4
    return logits


def test_results_of_padding_and_other_files_do_not_count_and_labels_are_compared_by_the_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "packed"
    # dtrb leaves out the label with a character outside the charset; a colon does not cut a label.
    names = write_labels(folder, ["Cat", "do-g", "12:30"])
    for name, text in zip(names, ["cat", "dog", "12"], strict=True):
        logits_of(text).tofile(folder / "result" / f"{name}_0.bin")
    logits_of("cat").tofile(folder / "result" / "padding_infer_fake_file_0.bin")
    (folder / "result" / "sumary.json").write_text("{}")
    main(["score", str(folder), "--protocol", "dtrb"])
    said = capsys.readouterr().out
    assert said.startswith("100.00 % word accuracy, 1 of 1 by protocol dtrb")
    assert said.rstrip().endswith("left out: 2 character outside the charset")
    main(["score", str(folder), "--protocol", "fsns"])  # as they stand: none is right
    assert capsys.readouterr().out.startswith("0.00 % word accuracy, 0 of 3 by protocol fsns")
    truths = [json.loads(line)["truth"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert truths == ["Cat", "do-g", "12:30"]


@pytest.mark.parametrize("kind", ["fp16.bin", "fp32.bin", "npy", "txt"])
def test_every_form_of_results_reads_alike(tmp_path: Path, kind: str) -> None:
    logits = logits_of("ab")
    if kind == "npy":
        np.save(tmp_path / "a_0.npy", logits[None])
    elif kind == "txt":
        (tmp_path / "a_0.txt").write_text("\n".join(" ".join(map(str, row)) for row in logits))
    else:
        logits.astype(np.float16 if kind == "fp16.bin" else np.float32).tofile(tmp_path / "a_0.bin")
    np.testing.assert_array_equal(read_result(tmp_path, "a", CARD), logits)


def test_what_is_wrong_is_named(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*result/00000000_0: no result with one of \.bin, \.npy, \.txt"):
        main(["score", str(packed), *PROTOCOL])
    folder = tmp_path / "other"
    [name] = write_labels(folder, ["a"])
    path = folder / "result" / f"{name}_0.bin"
    logits_of("a")[:24].tofile(path)
    with pytest.raises(SystemExit, match="expected 25 x 37 finite numbers, found 888, of which 888 are finite"):
        main(["score", str(folder), *PROTOCOL])
    np.where(np.arange(37) == 2, np.nan, logits_of("a")).astype(np.float32).tofile(path)
    with pytest.raises(SystemExit, match="found 925, of which 900 are finite"):
        main(["score", str(folder), *PROTOCOL])
    data = CARD["recipe"]["data"] | {"height": 64}
    high = write_card(tmp_path / "high", recipe={**CARD["recipe"], "data": data})
    with pytest.raises(SystemExit, match=r"pictures are \(32, 100, 1\), .* was made for \(64, 100, 1\)"):
        main(["pack", str(tmp_path / "new"), str(tmp_path / "a.shard"), "--card", str(high)])
    with pytest.raises(SystemExit, match="there are results of an earlier run: remove them first"):
        main(["command", str(folder), "--model", "m.om", "--batch", "1", "--run"])


def test_a_chip_that_is_not_there_is_an_error(packed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"error: python3 -m ais_bench .* failed: is ais_bench installed"):
        main(["command", str(packed), "--model", "m.om", "--batch", "1", "--run"])
    assert "No module named ais_bench" in capfd.readouterr().err
