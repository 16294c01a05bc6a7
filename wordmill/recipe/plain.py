"""Text files that people bring, in the encodings that they come in."""

import codecs
from contextlib import suppress
from pathlib import Path

# The first that fits: the mark of UTF-32 begins as that of UTF-16.
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
OTHERS = ("gb18030", "cp932", "big5", "euc_kr", "cp1252")  # what texts are in that are not UTF-8
ZEROS = 3  # UTF-16 and UTF-32 without a mark: of so many bytes one or more are 0
AROUND = 24  # characters around what is not UTF-8
WIDE = "as UTF-8 it is full of NULs: UTF-16 or UTF-32 without a byte order mark: save it as UTF-8"


def read_text(path: Path) -> str:
    """Return a file's text, UTF-8 or what its byte order mark says; ValueError names file, line and what it may be."""
    content = path.read_bytes()
    encoding = marked(content) or "utf-8"
    if encoding == "utf-8" and is_wide(content):
        raise ValueError(f"{path}, line 1: {WIDE}")
    try:
        return content.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        if encoding in ("utf-16", "utf-32"):
            raise ValueError(f"{path}: begins as {encoding.upper()} and goes on as something else") from None
        raise ValueError(not_utf8(str(path), content, error.start)) from None


def marked(content: bytes) -> str:
    """Return the encoding that a text's byte order mark says, "" where it has none."""
    return next((name for mark, name in MARKS if content.startswith(mark)), "")


def is_wide(content: bytes) -> bool:
    """Tell whether a text without a byte order mark has characters of two or four bytes, as far as they are ASCII."""
    return content.count(0) * ZEROS >= len(content) > 0


def not_utf8(where: str, content: bytes, start: int, line: int = 1) -> str:
    """Say of bytes whose first line has this number that they are no UTF-8 from a place on, and what they may be."""
    number = line + content.count(b"\n", 0, start)
    begin = content.rfind(b"\n", 0, start) + 1
    text = content[begin:].partition(b"\n")[0].rstrip(b"\r")
    shown = {}
    for encoding in OTHERS:
        with suppress(UnicodeDecodeError):
            place = len(text[: start - begin].decode(encoding, "ignore"))
            shown[encoding] = text.decode(encoding)[max(0, place - AROUND) : place + AROUND]
    told = ", ".join(f"as {encoding} it reads {near!r}" for encoding, near in list(shown.items())[:2])
    return f"{where}, line {number}: not UTF-8: {told or f'byte {start} is {content[start]:#04x}'}: save it as UTF-8"
