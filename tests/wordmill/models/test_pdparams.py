import collections
import io
import pickle
import pickletools
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from wordmill.models.pdparams import read_pdparams

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
TABLE = {"StructuredToParameterName@@": {"head.fc.weight": "linear_0.w_0"}}
NAME = "\x8c\x01a"  # SHORT_BINUNICODE "a"


def write(folder: Path, content: bytes) -> Path:
    (folder / "a.pdparams").write_bytes(content)
    return folder / "a.pdparams"


def refusal(folder: Path, content: bytes) -> str:
    path = write(folder, content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: no weights of PaddlePaddle: ") as refused:
        read_pdparams(path)
    told = str(refused.value)
    assert "\n" not in told
    assert len(told) < 600
    return told


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_are_read_as_paddlepaddle_writes_them(protocol: int, tmp_path: Path) -> None:
    beside = {"half": np.float16([1.5, -2]), "many": np.arange(300, dtype=np.int64), "one": np.array(7, np.float32)}
    turned = {"turned": np.asfortranarray(WEIGHT), "none": np.zeros((0, 3), np.float32), "big": np.float64([1e300])}
    content = pickle.dumps({"head.fc.weight": WEIGHT, **beside, **turned, **TABLE}, protocol)
    found = read_pdparams(write(tmp_path, content))
    assert {name: values.tolist() for name, values in found.items()} == {
        "head.fc.weight": [[0, 1, 2], [3, 4, 5]], "half": [1.5, -2], "many": list(range(300)), "one": 7,
        "turned": [[0, 1, 2], [3, 4, 5]], "none": [], "big": [np.inf],
    }  # fmt: skip
    assert {values.dtype.name for values in found.values()} == {"float32"}
    assert found["none"].shape == (0, 3)


class Tensor:
    """What PaddlePaddle from 2.1 on reduces a tensor to: a tuple of its name and its array."""

    def __reduce__(self) -> tuple[type, tuple[tuple[str, np.ndarray]]]:
        return tuple, (("linear_0.w_0", WEIGHT),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_with_their_own_names_are_read_too(protocol: int, tmp_path: Path) -> None:
    found = read_pdparams(write(tmp_path, pickle.dumps(collections.OrderedDict(weight=Tensor()), protocol)))
    assert found["weight"].tolist() == WEIGHT.tolist()


class Evil:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return io.open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_program_in_a_file_is_not_run(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"head.fc.weight": WEIGHT, "other": Evil(tmp_path / "written")}, protocol)
    told = refusal(tmp_path, content)
    assert protocol == 0 or "found '_io open', which is not run: expected one of numpy" in told or "io open" in told
    assert not (tmp_path / "written").exists()
    pickle.loads(content)  # noqa: S301 (it would have been)
    assert (tmp_path / "written").exists()


def assembled(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def array(shape: bytes = b"K\x01\x85", kind: str = "f4", order: str = "<", content: bytes = b"C\x04\0\0\x80?") -> bytes:
    """An array's opcodes, told as numpy tells it."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    kinds = (
        b"cnumpy\ndtype\n"
        + text(kind)
        + b"\x89\x88\x87R(K\x03"
        + text(order)
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    return made + b"(K\x01" + shape + kinds + b"\x89" + content + b"tb"


def test_arrays_put_together_by_hand_are_read(tmp_path: Path) -> None:
    found = read_pdparams(write(tmp_path, assembled(b"}", text("a"), array(), b"s")))
    assert found["a"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no pickle, or damaged: pickle exhausted before seeing STOP"),
        (b"PK\x03\x04 a zip file", "no pickle, or damaged: "),
        (pickle.dumps({"head.fc.weight": WEIGHT}, 4)[:-40], "no pickle, or damaged: "),
        (b"\x80\x04.", "damaged: it ends within, or takes what is not there"),
        (b"\x80\x04h\x05.", "damaged: it takes value 5, which is not there (at byte 2)"),
        (pickle.dumps([WEIGHT], 4), "expected arrays by name, found list"),
        (pickle.dumps({}, 4), "expected arrays by name, found dict"),
        (pickle.dumps({"a\nb": 3}, 4), "'a\\nb': expected an array, found int"),
        (pickle.dumps({"a": {"b": WEIGHT}}, 4), "'a': expected an array, found dict"),
        (pickle.dumps({"a": np.array(["x"])}, 4), "found 'numpy dtype' of what weights do not have"),
        (pickle.dumps({"a": np.array([None])}, 4), "found 'numpy dtype' of what weights do not have"),
        (pickle.dumps({"a": np.float32(1)}, 4), "scalar', which is not run"),
        (pickle.dumps({"a": np.arange(3, dtype=">f4")}, 4), "Kind is told what weights do not have"),
        (pickle.dumps({"a": WEIGHT}, 5), "numeric _frombuffer', which is not run"),
        (pickle.dumps({"a": WEIGHT, "UnpackBigParamInfor@@": {}}, 4), "found UnpackBigParamInfor@@, arrays in parts"),
        (pickle.dumps({1: WEIGHT}, 4), "expected a dict and texts as its keys, found dict"),
        (assembled(b"}", text("a"), array(shape=b"K\x02\x85"), b"s"), "shape (2,) of f4 has 4 bytes, expected 8: "),
        (assembled(b"}", text("a"), array(shape=b"J\xff\xff\xff\xff\x85"), b"s"), "found a shape that is none"),
        (assembled(b"}", text("a"), array(shape=b"\x8a\xff" + b"\x7f" * 255 + b"\x85"), b"s"), "shape that is none"),
        (assembled(b"cos\nsystem\n", text("true"), b"\x85R"), "found 'os system', which is not run"),
        (assembled(text("os"), text("system"), b"\x93", text("true"), b"\x85R"), "found 'os system', which is not run"),
        (assembled(b"cbuiltins\neval\n", text("1"), b"\x85R"), "found 'builtins eval', which is not run"),
        (assembled(b"(", text("1"), b"ios\nsystem\n"), "found opcode INST, which weights are not written in"),
        (assembled(b"}", text("a"), b"b"), "dict is told what weights do not have"),
        (assembled(b"K\x01K\x02R"), "found int of what weights do not have"),
    ],
)  # fmt: skip
def test_what_is_no_weights_is_refused_in_one_line(content: bytes, told: str, tmp_path: Path) -> None:
    assert told in refusal(tmp_path, content)


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    """One array of 1 MB under a thousand names, and a text that is turned into bytes again and again."""
    shared = np.zeros(1 << 18, np.float32)
    content = pickle.dumps({f"weight{number}": shared for number in range(1000)}, 4)
    assert len(content) < 2 << 20
    assert "its arrays have more bytes than the file" in refusal(tmp_path, content)
    again = b"".join(b"c_codecs\nencode\nh\0" + text("latin1") + b"\x86R0"[:-1] for _ in range(2000))
    assert "expected arrays by name" in refusal(tmp_path, assembled(text("x" * (1 << 20)), b"q\0", again))


def test_every_cut_and_every_lost_byte_is_refused_or_read(tmp_path: Path) -> None:
    content = pickle.dumps({"head.fc.weight": WEIGHT, **TABLE}, 2)
    for place in range(len(content)):
        refusal(tmp_path, content[:place])
        try:
            found = read_pdparams(write(tmp_path, content[:place] + content[place + 1 :]))
        except ValueError:
            continue
        assert all(values.size <= 6 for values in found.values())


def test_no_more_opcodes_are_taken_than_weights_are_written_in() -> None:
    """Those that name, call or change anything beside containers are these."""
    content = pickle.dumps(collections.OrderedDict(a=Tensor(), b=np.asfortranarray(WEIGHT), **TABLE), 2)
    content += pickle.dumps({"a": WEIGHT, **TABLE}, 4)
    names = {
        opcode.name for start in (0, content.index(b"\x80\x04")) for opcode, _, _ in pickletools.genops(content[start:])
    }
    assert {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"} <= names
    assert not names & {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "PERSID", "BINPERSID", "NEXT_BUFFER"}
