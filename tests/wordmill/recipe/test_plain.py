from pathlib import Path

import pytest

from wordmill.recipe.plain import read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_what_a_text_is_in(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("a\u2028é\r\nb\x85\n".encode(encoding))
    assert read_text(path) == "a\u2028é\nb\x85\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("x\n样本.png\n".encode("gbk"), "line 2: not UTF-8: as gb18030 it reads '样本.png'"),
        ("x\r\ny\r\ncafé\r\n".encode("latin-1"), "line 3: not UTF-8: as cp1252 it reads 'café'"),
        (b"a" * 100 + b"\xe9" + b"b" * 100, "line 1: not UTF-8: as gb18030 it reads 'a{24}"),
        (b"\x81", "line 1: not UTF-8: byte 0 is 0x81"),
    ],
)
def test_another_encoding_is_told_by_file_and_line(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'text'}, {told}"):
        read_text(tmp_path / "text")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_characters_without_a_mark_are_told(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("a.png\nb.png\n".encode(encoding))
    with pytest.raises(
        ValueError, match=f"^{tmp_path / 'text'}, line 1: as UTF-8 it is full of NULs: UTF-16 or UTF-32"
    ):
        read_text(tmp_path / "text")


def test_utf16_that_breaks_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xff\xfea\0b")
    with pytest.raises(ValueError, match=f"^{tmp_path / 'text'}: begins as UTF-16 and goes on as something else"):
        read_text(tmp_path / "text")
