from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.models.ms.messages import Entry, message
from wordmill.models.ms.foreign import read

TWELVE = np.arange(12, dtype="<f4").tobytes()


def test_weights_have_their_values_by_name(tmp_path: Path) -> None:
    file = message(
        ("neck.weight", (3, 4), "Float32", TWELVE), ("bn.gamma", (2,), "Float16", np.float16([1, 2]).tobytes()),
        ("bn.moving_mean", (2,), "BFloat16", b"\x80\x3f\x00\xc0"), ("step", (0,), "Int32", b"\7\0\0\0"),
        ("note", (1,), "str", b"n\0\0\0"),
        ("large", (4,), "Float32", TWELVE[:8]), ("large", (4,), "Float32", TWELVE[8:16]),
    )  # fmt: skip
    (tmp_path / "a.ckpt").write_bytes(file + b"crc_num" + bytes(10))
    found = read(tmp_path / "a.ckpt")
    assert {name: values.tolist() for name, values in found.items()} == {
        "neck.weight": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], "bn.weight": [1, 2], "bn.running_mean": [1, -2],
        "step": 7, "large": [0, 1, 2, 3],
    }  # fmt: skip
    assert {values.dtype.name for values in found.values()} == {"float32"}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (("a", (2, 2), "Float32", TWELVE), r"a: shape \(2, 2\) of Float32 has 48 bytes, expected 16: damaged"),
        (("a", (300000, 400), "Float32", TWELVE), "has 48 bytes, expected 480000000: damaged"),
        (("a", (-3, -4), "Float32", TWELVE), r"shape \(-3, -4\) .* damaged"),
        (("a", (), "Float32", TWELVE), "has 48 bytes, expected 4: damaged"),
        (("a", (3, 0), "Float32", b""), "damaged"),
        (("a", (3,), "Int4", TWELVE), "a: type 'Int4', expected one of Float16, Float32"),
    ],
)
def test_a_shape_that_is_not_the_contents_is_refused(entry: Entry, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(message(entry))
    with pytest.raises(ValueError, match=told):
        read(tmp_path / "a.ckpt")


@pytest.mark.parametrize(("content", "told"), [(b"\xff" * 9, "another file, or damaged"), (b"", "no weights")])
def test_another_file_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.ckpt: not a checkpoint of MindSpore: .*{told}"):
        read(tmp_path / "a.ckpt")
