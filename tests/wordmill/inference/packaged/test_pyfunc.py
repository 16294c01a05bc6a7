import ast
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.wordmill.inference.maker import CRNN, Maker
from wordmill.inference.package import READER, REQUIREMENTS
from wordmill.inference.packaged.pyfunc import open_onnx
from wordmill.pictures.image import Picture
from wordmill.store.artifacts import ROOT
from wordmill.store.keys import source_files
from wordmill.store.storage import hash_file


def test_the_reader_takes_batches_and_says_what_it_does_not_take(
    maker: Callable[..., Maker], images: list[Picture], tmp_path: Path
) -> None:
    made = maker(CRNN)
    reader = made.open(tmp_path / "data", made.exported())
    many = np.stack([images[0], images[5]] * 40)  # more than one batch of the network
    assert list(reader.predict(many)["text"]) == made.expected([images[0], images[5]])[0] * 40
    assert reader.predict([]).empty
    texts, confidences = reader.read(np.empty((0, 32, 100, 3), np.uint8))
    assert (texts, confidences.tolist()) == ([], [])
    for wrong, told in [
        (images[0], r"shape \(N, H, W, C\), found \(32, 100, 3\): hand over a list"),
        (b"one", "expected a list of images or a DataFrame, found bytes"),
        (pd.DataFrame({"picture": [b"one"]}), r"expected a column 'image', found \['picture'\]"),
        ({"picture": ["one"]}, r"expected a column 'image', found \['picture'\]"),
        ({"image": {"image": ["one"]}}, "expected a list of images or a DataFrame, found dict"),
        (np.array("one"), r"shape \(N, H, W, C\), found \(\): hand over a list"),
        (
            [np.zeros((0, 4), np.uint8)],
            r"1 of 1 images cannot be read: image 0: expected uint8 .* found uint8 \(0, 4\)",
        ),
        ([None], "image 0: expected bytes, a path or a uint8 array, found NoneType"),
    ]:
        with pytest.raises(ValueError, match=told):
            reader.predict(wrong)


def test_characters_of_a_file_that_straightens_pictures_have_no_places(
    maker: Callable[..., Maker], images: list[Picture], tmp_path: Path
) -> None:
    made = maker(CRNN)
    reader = made.open(tmp_path / "data", made.exported())
    card = next((tmp_path / "data").rglob("card.json"))
    plain = reader.predict(images[:3], {"characters": True})["characters"]
    assert any(one["end"] is not None for found in plain for one in found)
    told = json.loads(card.read_text())
    told["recipe"]["model"]["rectification"] = "tps"
    card.write_text(json.dumps(told))
    found = open_onnx(card).predict(images[:3], {"characters": True})["characters"]
    assert [[one["text"] for one in row] for row in found] == [[one["text"] for one in row] for row in plain]
    assert all(one["start"] is one["end"] is None for row in found for one in row)


def test_a_damaged_file_is_refused(maker: Callable[..., Maker], tmp_path: Path) -> None:
    made = maker(CRNN)
    made.open(tmp_path / "data", made.exported())
    path = tmp_path / "data" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"sha256 is {hash_file(path)}, expected .*: the file is damaged"):
        open_onnx(tmp_path / "data" / "card.json")


def test_the_requirements_are_this_environments_and_cover_what_the_code_imports() -> None:
    pins = REQUIREMENTS.read_text().split()
    constraints = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin not in constraints] == []
    named = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "PyYAML"}
    imported = set()
    for path in source_files([READER]):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {*modules, *([node.module or ""] if isinstance(node, ast.ImportFrom) else [])}
    packages = {name.partition(".")[0] for name in imported} - {*sys.stdlib_module_names, "wordmill"}
    assert {named.get(name, name) for name in packages} == {re.split("==", pin)[0] for pin in pins}
