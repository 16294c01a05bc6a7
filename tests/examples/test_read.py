"""The C++ example, compiled against ONNX Runtime's headers, run with the library of its Python package."""

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.components.export.exported import pictures, png, write_onnx
from tests.components.train.trained import DATA, MODEL
from wordmill.inference.onnx_runtime import onnxruntime
from wordmill.inference.packaged.pyfunc import open_onnx
from wordmill.recipe.sections import Data, Model

ROOT = Path(__file__).resolve().parents[2]
INCLUDES = (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/include")
COLOUR = Data(train=("a",), val=("b",), charset="lower36", height=32, width=100, channels=3, fit="pad_grey",
              interpolation="bicubic", turn_tall=True, middle=128.0, space=True)  # fmt: skip
RARE = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=12, decoder_hidden=16)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's program, built here."""
    headers = next((path for path in map(Path, INCLUDES) if (path / "onnxruntime_cxx_api.h").is_file()), None)
    if not (headers and shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("needs cmake, a C++ compiler, and ONNX Runtime's headers, named by ONNXRUNTIME_INCLUDE")
    folder = tmp_path_factory.mktemp("cpp")
    [library] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1*")
    (folder / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # as the linker and the loader look for it
        (folder / "lib" / name).symlink_to(library)
    settings = [f"-DONNXRUNTIME_INCLUDE={headers}", f"-DONNXRUNTIME_LIBRARY={folder / 'lib' / 'libonnxruntime.so'}"]
    source, build = str(ROOT / "examples" / "cpp"), str(folder / "build")
    subprocess.run(["cmake", "-S", source, "-B", build, "-DCMAKE_CXX_FLAGS=-Werror", *settings], check=True)
    subprocess.run(["cmake", "--build", build], check=True)
    return folder / "build" / "read"


@pytest.mark.parametrize(
    ("model", "data"), [(MODEL, DATA), (MODEL, COLOUR), (RARE, COLOUR)], ids=["grey", "ctc", "rare"]
)
def test_it_reads_what_python_reads(program: Path, tmp_path: Path, model: Model, data: Data) -> None:
    write_onnx(tmp_path / "model", model, data)
    images = [*pictures(7), *map(np.ascontiguousarray, (np.rot90(image) for image in pictures(2)))]
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(png(image))
    expected = open_onnx(tmp_path / "model" / "card.json").predict(paths, {"characters": True})
    assert len(set(expected["text"])) > 2
    for path, text, confidence, characters in zip(paths, *(expected[name] for name in expected), strict=True):
        command = [program, tmp_path / "model", path]
        done = subprocess.run([*command, "--characters"], capture_output=True, text=True, check=True)
        first, *lines = done.stdout.split("\n")[:-1]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{first}\n"
        printed, _, found = first.partition("\t")
        assert (found, float(printed)) == (text, pytest.approx(confidence, abs=1e-3))
        told = [line.split("\t") for line in lines]
        assert [one[3] for one in told] == [one["text"] for one in characters]
        for key, column in (("confidence", 0), ("start", 1), ("end", 2)):
            places = [None if one[column] == "-" else pytest.approx(float(one[column]), abs=1e-3) for one in told]
            assert [one[key] for one in characters] == places


def test_what_is_no_picture_and_no_model_ends_in_one_line(program: Path, tmp_path: Path) -> None:
    write_onnx(tmp_path / "model")
    (tmp_path / "words.txt").write_text("word")
    cv2.imwrite(str(tmp_path / "word.png"), np.zeros((32, 100), np.uint8))
    for folder, picture, told in [
        ("model", "words.txt", f"{tmp_path}/words.txt: no picture"),
        ("absent", "word.png", f"{tmp_path}/absent/card.json: cannot be opened"),
    ]:
        done = subprocess.run(
            [program, tmp_path / folder, tmp_path / picture], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {told}\n")
