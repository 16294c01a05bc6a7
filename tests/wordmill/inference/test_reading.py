from tests.wordmill.models.ms import ms  # isort: skip

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.cli import main
from tests.components.export.exported import pictures, png, write_card, write_onnx
from tests.components.smoke import ascend_doubles
from tests.components.train.trained import DATA
from wordmill.inference.packaged.pyfunc import BATCH, TextRecogniser
from wordmill.inference.reading import (
    find_images,
    left_out_text,
    native_errors_hidden,
    open_recogniser,
    read_images,
    save_readings,
)
from wordmill.inference.runtimes import INSTALL
from wordmill.models import checkpoint
from wordmill.models.ms.export import export_mindir
from wordmill.models.pt.export import export_onnx
from wordmill.models.pt.predict import Predictor
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import Picture, filled, fit_picture
from wordmill.text.charset import charset_of
from wordmill.text.decoding import CtcCodec

assert ms


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same recogniser in a folder of its own for every kind of file."""
    folder = tmp_path_factory.mktemp("model")
    saved = write_onnx(folder / "onnx")
    checkpoint.save(folder / "model.safetensors", saved)
    for kind, batch, write in (
        ("mindir", None, export_mindir),
        ("mindir_3", 3, export_mindir),
        ("onnx_3", 3, export_onnx),
    ):
        (folder / kind).mkdir()
        path = folder / kind / f"model.{kind.removesuffix('_3')}"
        write(saved, path, batch=batch)
        write_card(path, saved, batch)
    return folder


def write_pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for path, image in zip(paths, pictures(count), strict=True):
        path.write_bytes(png(image))
    return paths


def expected(model: Path, paths: list[Path]) -> tuple[list[str], list[float]]:
    fitted = np.stack([fit_picture(decode(path.read_bytes(), DATA.channels), DATA) for path in paths])
    texts, confidences = Predictor(checkpoint.load(model / "model.safetensors"), "cpu").read(fitted)
    return texts, confidences.tolist()


@pytest.mark.parametrize(
    "file", ["onnx", "onnx/model.onnx", "onnx_3", "mindir/model.mindir", "mindir_3", "model.safetensors"]
)
def test_every_file_of_a_recogniser_reads_what_its_framework_does(model: Path, tmp_path: Path, file: str) -> None:
    paths = write_pictures(tmp_path / "words", 8)
    found = list(read_images(open_recogniser(model / file), paths))
    texts, confidences = expected(model, paths)
    assert len(set(texts)) > 3
    assert [result.text for result in found] == texts
    assert [result.confidence for result in found] == pytest.approx(confidences, abs=1e-3)
    assert [result.path for result in found] == paths


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give the file that the doubles of MindSpore Lite and ais_bench write their calls to."""
    log = ascend_doubles.install(monkeypatch, tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    yield log
    for name in ("mindspore_lite", "ais_bench.infer.interface", "ais_bench.infer", "ais_bench"):
        sys.modules.pop(name, None)


OPEN, IMAGES = "open 0 model.om", "1, 32, 100)"


@pytest.mark.parametrize(
    ("name", "batch", "raw", "told", "said"),
    [
        ("model.mindir", None, False, {"format": "lite", "device": "cpu"},
         ["build model.mindir MINDIR on ['cpu'] None", "resize [[9, 1, 32, 100]]"]),
        ("model.mindir", 4, False, {"format": "lite", "device": "ascend"},
         ["build model.mindir MINDIR on ['ascend'] 0", "resize [[4, 1, 32, 100]]"]),
        ("model.om", 4, False, {}, [OPEN, *[f"infer static (4, {IMAGES}"] * 3]),
        # The smallest gear that takes all 9 pictures, as bytes.
        ("model.om", None, True, {"gears": [1, 8, 64]}, [OPEN, "infer dymbatch (64, 32, 100, 1)"]),
        ("model.om", None, False, {"gears": [1, 8]}, [OPEN, *[f"infer dymbatch (8, {IMAGES}"] * 2]),
    ],
    ids=["lite", "lite_4", "om_4", "om_bytes_in_gears", "om_in_small_gears"],
)  # fmt: skip
def test_files_of_ascend_chips_are_read_in_the_batches_that_their_card_names(
    model: Path, tmp_path: Path, calls: Path, name: str, batch: int | None, raw: bool, told: dict[str, Any],
    said: list[str],
) -> None:  # fmt: skip
    saved = checkpoint.load(model / "model.safetensors")
    onnx = tmp_path / "made" / "model.onnx"
    onnx.parent.mkdir()
    export_onnx(saved, onnx, batch=batch, decoded=False)
    write_card(onnx.rename(onnx.with_name(name)), saved, batch, raw=raw, told=told)
    paths = write_pictures(tmp_path / "words", 9)
    found = list(read_images(open_recogniser(tmp_path / "made" / name), paths))
    texts, confidences = expected(model, paths)
    assert [result.text for result in found] == texts
    assert [result.confidence for result in found] == pytest.approx(confidences, abs=1e-4)
    assert calls.read_text().splitlines() == said


@pytest.mark.parametrize(
    ("export_format", "module"),
    [
        ("onnx", "onnxruntime"),
        ("onnx_int8", "onnxruntime"),
        ("mindir", "wordmill.inference.mindir"),
        ("lite", "mindspore_lite"),
        ("om", "ais_bench"),
    ],
)
def test_a_runtime_that_is_not_here_is_named_with_what_brings_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_format: str, module: str
) -> None:
    path = tmp_path / "model.file"
    path.write_bytes(b"a file")
    write_card(path, checkpoint.load(model / "model.safetensors"), told={"format": export_format, "device": "cpu"})
    monkeypatch.delitem(sys.modules, "wordmill.inference.onnx_runtime", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeError) as told:
        open_recogniser(path)
    assert str(told.value).startswith(f"format {export_format}: its runtime is not here, ")
    assert module in str(told.value)
    assert str(told.value).endswith(f": {INSTALL[export_format]}")


def test_a_picture_that_cannot_be_read_is_named_in_its_place_and_stops_nothing(tmp_path: Path) -> None:
    # A network that knows every picture by its first pixel: class 1 of lower36 is 0, class 2 is 1.
    def network(images: Picture) -> np.ndarray:
        assert len(images) <= BATCH
        logits = np.full((len(images), 1, 37), -99, np.float32)
        logits[np.arange(len(images)), 0, images[:, 0, 0, 0]] = 0
        return logits

    recogniser = TextRecogniser(DATA, CtcCodec(charset=charset_of(DATA)), network)
    names = []
    for number in range(2 * BATCH + 3):  # the last batch is not full
        path = tmp_path / f"{number:03}.png"
        path.write_bytes(png(np.full((32, 100, 1), 1 + number % 36, np.uint8)) if number % 50 else b"GIF89a, or not")
        names.append(path)
    names[7] = tmp_path / "absent.png"
    symbols = "0123456789abcdefghijklmnopqrstuvwxyz"
    for number, result in enumerate(read_images(recogniser, names)):
        if number == 7:
            assert (result.path.name, result.error) == ("absent.png", "No such file or directory")
        elif number % 50 == 0:
            assert result.error == "not a whole picture: 14 bytes that begin with b'GIF89a, '"
        else:
            assert (result.text, result.error) == (symbols[number % 36], "")
            assert result.confidence == pytest.approx(1.0)


def test_a_batch_without_any_picture_asks_the_network_nothing(tmp_path: Path) -> None:
    def network(images: Picture) -> np.ndarray:
        raise AssertionError(f"{len(images)} pictures")

    recogniser = TextRecogniser(DATA, CtcCodec(charset=charset_of(DATA)), network)
    [result] = read_images(recogniser, [tmp_path / "absent.png"])
    assert result.record() == json.dumps({"path": str(tmp_path / "absent.png"), "error": "No such file or directory"})


def test_pictures_are_found_in_folders_and_lists(tmp_path: Path) -> None:
    folder = tmp_path / "words"
    for name in ("b.PNG", "a.jpeg", "deep/er/c.tif", "labels.tsv", "notes", "d.png/e.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found = [folder / name for name in ("a.jpeg", "b.PNG", "d.png/e.bmp", "deep/er/c.tif")]
    assert find_images(folder) == (found, [folder / "labels.tsv", folder / "notes"])
    assert find_images(folder / "notes") == ([folder / "notes"], [])
    listed = tmp_path / "list.txt"
    listed.write_text("words/b.PNG\n\n/elsewhere/word ü.png\n", encoding="utf-8")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        listed.write_text("words/b.PNG\r\n\n/elsewhere/word ü.png\na\u2028b.png\n", encoding)
        assert find_images(listed)[0] == [
            tmp_path / "words" / "b.PNG", Path("/elsewhere/word ü.png"), tmp_path / "a\u2028b.png"]  # fmt: skip
    listed.write_text("words/ü.png", "latin-1")
    with pytest.raises(ValueError, match=f"^{listed}, line 1: not UTF-8: as cp1252 it reads 'words/ü.png'"):
        find_images(listed)
    listed.write_text("\n")
    (tmp_path / "empty").mkdir()
    for path, told in ((listed, "the list is empty"), (tmp_path / "empty", "no file in it begins or ends as"),
                       (tmp_path / "absent", "no such file or folder")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            find_images(path)


def test_nothing_of_a_folder_is_left_out_silently(tmp_path: Path) -> None:
    picture = png(np.zeros((4, 4, 1), np.uint8))
    for name in ("a.jfif", "b.JPE", "noending", "photo.dat"):
        (tmp_path / name).write_bytes(picture)
    for name in ("._a.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0")
    others = [
        tmp_path / name for name in ("film.mov", "labels.txt", "new\nline", *(f"z{number}" for number in range(8)))
    ]
    for path in others[1:]:
        path.write_text("word")
    found, left_out = find_images(tmp_path)
    assert [path.name for path in found] == ["a.jfif", "b.JPE", "c.heic", "gone", "noending", "photo.dat"]
    assert left_out == others
    assert left_out_text(left_out) == (
        f"no pictures, left out: {tmp_path}/film.mov, {tmp_path}/labels.txt, {tmp_path}/new\\nline, "
        f"{', '.join(f'{tmp_path}/z{number}' for number in range(5))} and 3 more"
    )
    assert left_out_text([]) == ""


def reads_nothing(images: Picture) -> np.ndarray:
    return np.zeros((len(images), 1, 37), np.float32)


def test_readings_are_written_as_they_come_whatever_the_files_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xcd\xbc\xff.png")))
    names = [raw, tmp_path / "two\nlines.png", tmp_path / "damaged.jpg"]
    for path in names[:2]:
        path.write_bytes(png(np.zeros((4, 4, 1), np.uint8)))
    whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (40, 90), np.uint8))[1].tobytes()
    names[2].write_bytes(whole[: len(whole) // 2])
    recogniser = TextRecogniser(DATA, CtcCodec(charset=charset_of(DATA)), reads_nothing)
    output = tmp_path / "state" / "readings.jsonl"
    assert save_readings(recogniser, names, output) == 1
    records = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    assert [record["path"] for record in records] == [str(path) for path in names]
    assert os.fsencode(records[0]["path"]).endswith(b"\xcd\xbc\xff.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/\u037c\\udcff.png\t")
    assert lines[1].startswith(f"{tmp_path}/two\\nlines.png\t")
    save_readings(recogniser, names, output, as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == records


def test_what_was_read_before_a_stop_is_kept(tmp_path: Path) -> None:
    names = [tmp_path / f"{number:03}.png" for number in range(BATCH + 2)]
    for path in names:
        path.write_bytes(png(np.zeros((4, 4, 1), np.uint8)))
    calls = []

    def network(images: Picture) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reads_nothing(images)

    output = tmp_path / "readings.jsonl"
    output.write_text("of an earlier run\n")
    with pytest.raises(KeyboardInterrupt):
        save_readings(TextRecogniser(DATA, CtcCodec(charset=charset_of(DATA)), network), names, output)
    assert [json.loads(line)["path"] for line in output.read_text().splitlines()] == [
        str(path) for path in names[:BATCH]
    ]


def test_libraries_write_no_line_for_every_damaged_picture(capfd: pytest.CaptureFixture[str]) -> None:
    with native_errors_hidden():
        os.write(2, b"Corrupt JPEG data: premature end of data segment")
    os.write(2, b"seen")
    assert capfd.readouterr().err == "seen"


def test_a_model_file_without_its_card_or_with_anothers_is_refused(model: Path, tmp_path: Path) -> None:
    alone = tmp_path / "other.onnx"
    alone.write_bytes(b"0")
    with pytest.raises(ValueError, match=f"{alone}: found no card.json beside it, expected"):
        open_recogniser(alone)
    for absent in (tmp_path / "no.onnx", tmp_path / "no.safetensors", Path("/nonexistent")):
        with pytest.raises(ValueError, match=f"^{absent}: no such file or folder, expected"):
            open_recogniser(absent)
    (tmp_path / "card.json").write_bytes((model / "onnx" / "card.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes((model / "onnx" / "model.onnx").read_bytes())
    with pytest.raises(ValueError, match="other.onnx: the card beside it, .*card.json, describes model.onnx"):
        open_recogniser(alone)
    (tmp_path / "model.onnx").write_bytes((model / "onnx" / "model.onnx").read_bytes()[:-1])
    with pytest.raises(ValueError, match="the file is damaged"):
        open_recogniser(tmp_path)


def test_a_card_of_two_files_of_one_name_knows_both(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes((model / "onnx" / "model.onnx").read_bytes())
    card = json.loads((model / "onnx" / "card.json").read_text())
    # As a registered model's card lists the files of all formats: the quantised one is called the same.
    card["files"]["onnx_int8"] = [{"name": "model.onnx", "sha256": "0" * 64, "bytes": 1}]
    (tmp_path / "card.json").write_text(json.dumps(card))
    paths = write_pictures(tmp_path / "words", 2)
    assert [result.text for result in read_images(open_recogniser(path), paths)] == expected(model, paths)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="expected [0-9a-f]{64} or 0{64}: the file is damaged"):
        open_recogniser(path)


def run(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["read", *arguments])
    return ended.value.code


def test_the_verb_prints_and_saves_every_reading(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_pictures(tmp_path / "words", 3)
    texts, confidences = expected(model, paths)
    arguments = [str(tmp_path / "words"), "--model", str(model / "onnx" / "model.onnx"), "-o", str(tmp_path / "out")]
    assert run(*arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{paths[0]}\t{texts[0]}\t{confidences[0]:.4f}"
    assert printed[3].startswith("read  3/3 images  100.0 %")
    assert printed[4] == str(tmp_path / "out")
    saved = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(entry["path"], entry["text"]) for entry in saved] == list(zip(map(str, paths), texts, strict=True))
    (tmp_path / "words" / "003.png").write_bytes(png(pictures(1)[0])[:60])
    assert run(*arguments) == 1
    printed = capsys.readouterr()
    assert f"{tmp_path / 'words' / '003.png'}: not a whole picture" in printed.out
    assert "1 of 4 images cannot be read" in printed.err
    assert "error" in json.loads((tmp_path / "out").read_text().splitlines()[3])


def test_characters_and_alternatives_stand_in_the_lines_where_they_are_asked_for(tmp_path: Path) -> None:
    def network(images: Picture) -> np.ndarray:
        logits = np.full((len(images), 4, 37), -9, np.float32)
        logits[:, [0, 1, 2, 3], [11, 0, 12, 12]] = 9  # a, blank, b, b
        return logits

    padded = dataclasses.replace(DATA, fit="pad_grey")
    recogniser = TextRecogniser(padded, CtcCodec(charset=charset_of(DATA)), network)
    path, broken = tmp_path / "half.png", tmp_path / "broken.png"
    path.write_bytes(png(np.zeros((32, 50, 1), np.uint8)))  # half of the network's width
    broken.write_bytes(b"none")
    save_readings(recogniser, [broken, path], tmp_path / "r.jsonl", characters=True, alternatives=1)
    wrong, reading = (json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines())
    assert set(wrong) == {"path", "error"}
    # Centres at 0.5 and 3 of 4 frames; in the picture, twice that, both cells end half way: 0.875, and at its edge.
    assert reading["characters"] == [
        {"text": "a", "confidence": 1.0, "start": 0.0, "end": 0.875},
        {"text": "b", "confidence": 1.0, "start": 0.875, "end": 1.0},
    ]
    assert reading["alternatives"] == [{"text": "ab", "probability": 1.0}]
    (plain,) = read_images(recogniser, [path])
    assert plain.details == {}
    unsaid = TextRecogniser(padded, CtcCodec(charset=charset_of(DATA)), network, straightened=True)
    (told,) = read_images(unsaid, [path], characters=True)
    assert [(one["start"], one["end"]) for one in told.details["characters"]] == [(None, None)] * 2
    # Straightened columns lie at 0 to 0.25 of the input, at 0 to 0.5 of the picture.
    lie = np.linspace(0, 0.25, 2, dtype=np.float32)[None]  # of columns whose middles are at 0.25 and 0.75
    said = TextRecogniser(padded, CtcCodec(charset=charset_of(DATA)), network, columns=lambda _: lie, straightened=True)
    (told,) = read_images(said, [path], characters=True)
    # a from 0 (the first column's middle, at 0) to 0.4375: (0.4375 - 0.25) / 0.5 of 0.5; b ends at 1, the last one's.
    found = [place for one in told.details["characters"] for place in (one["start"], one["end"])]
    assert found == pytest.approx([0.0, 0.1875, 0.1875, 0.5], abs=1e-4)


def test_a_picture_fills_as_much_of_the_width_as_it_is_fitted_to() -> None:
    padded = dataclasses.replace(DATA, fit="pad_black", turn_tall=True)
    assert [filled(shape, padded) for shape in ((32, 50), (64, 50, 3), (32, 400), (64, 20, 1))] == [0.5, 0.25, 1.0, 1.0]
    assert filled((64, 50), DATA) == 1.0
