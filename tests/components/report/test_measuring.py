import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.report.measuring import Greedy, measure_file, measured_text, write_page
from tests.components.evaluate.test_stage import DATA, MODEL, ReadsPixels, arguments
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.pictures.image import Picture
from wordmill.store.artifacts import read_manifest
from wordmill.store.storage import Store, hash_file
from wordmill.text.decoding import Logits, codec_of

CODEC = codec_of(MODEL, DATA)


def network(pictures: Picture) -> Logits:
    """Logits that decode to what the pictures' pixels say."""
    kept: list[Logits] = []
    codec = SimpleNamespace(decode=lambda logits: kept.append(logits))
    ReadsPixels.read(SimpleNamespace(codec=codec), pictures, 1)
    return kept[0]


@pytest.fixture
def recogniser() -> TextRecogniser:
    return TextRecogniser(DATA, CODEC, network)


def test_any_file_is_measured_as_a_recogniser_is(store: Store, tmp_path: Path, recogniser: TextRecogniser) -> None:
    told, model = arguments(store, tmp_path), tmp_path / "model.onnx"
    model.write_bytes(b"a network")
    measure_file(recogniser, model, "mindocr", Path(told["shards"]), "words", "evaluate-1", tmp_path / "out.json")
    made = read_manifest(tmp_path / "out.json")
    assert (made.facts["total"], made.facts["correct"]) == (5, 2)
    assert made.inputs["files"] == {"model.onnx": hash_file(model)}
    rows = [json.loads(line) for line in store.fetch(made.object("predictions.jsonl")).read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["cat", "dig", "ab", "moon", "y"]

    summary = write_page(store, "my model", "evaluate-1", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>my model</h1>" in page
    assert "2 / 5" in page
    told_lines = measured_text(summary).splitlines()
    assert told_lines[0] == (
        "words  2 of 5 read right, 40.00 % (95 %: 11.76 to 76.93) by protocol mindocr, 1-NED "
        f"{1 - (1 / 3 + 3 / 4 + 1) / 5:.4f}"
    )
    assert told_lines[1:4] == [
        "  1 changed: case folded",
        "  1 changed: characters deleted",
        "  1 changed: spaces removed",
    ]
    # dog/dig 1, sun/moon 3, x/y 1
    assert told_lines[-1].startswith("  of 5 confused characters: ")
    assert "o > i 1" in told_lines[-1]


def test_a_file_reads_without_a_beam_search(recogniser: TextRecogniser) -> None:
    with pytest.raises(ValueError, match="5 beams: a file is read by one"):
        Greedy(recogniser).read(np.zeros((1, 8, 16, 3), np.uint8), 5)
