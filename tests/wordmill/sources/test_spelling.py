import os

import pytest

from wordmill.sources.spelling import alike, ends_alike, spellings


def test_a_name_has_the_bytes_of_either_normal_form_and_of_other_encodings() -> None:
    assert spellings("a/b.png") == {b"a/b.png"}
    found = spellings("\u00e9")
    assert {b"\xc3\xa9", b"e\xcc\x81", b"\x82", b"\xe9"} <= found  # UTF-8, composed and not, cp437, cp1252
    # Shift-JIS has 0x5C, a backslash, as the second byte of this one.
    assert {b"\x83\x5c", b"\x83/"} <= spellings("ソ")


@pytest.mark.parametrize(
    ("path", "end", "is_so"),
    [
        ("a/Words", "words", True),
        ("a/swords", "words", False),
        ("a/words/b", "words", False),
        ("cafe\u0301", "caf\u00e9", True),
        (os.fsdecode("集/图片".encode("gbk")), "集/图片", True),
        (os.fsdecode("集/图片".encode("gbk")), "图", False),
    ],
)
def test_a_path_ends_with_another_in_whatever_spelling(path: str, end: str, is_so: bool) -> None:
    assert ends_alike(path, end) is is_so


def test_case_and_normal_form_alone_make_no_difference() -> None:
    assert alike("STRASSE/E\u0301") == alike("straße/\u00e9")
    assert alike("a") != alike("\u00e4")
