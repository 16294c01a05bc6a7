"""Text files that people bring, in the encodings that they come in."""

import codecs
from contextlib import suppress
from pathlib import Path

MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
OTHERS = ("gb18030", "cp932", "big5", "euc_kr", "cp1252")  # what texts are in that are not UTF-8
SHOWN = 24  # characters around what is not UTF-8


def read_text(path: Path) -> str:
    """Return a file's text, UTF-8 or what its byte order mark says; ValueError names file, line and what it may be."""
    content = path.read_bytes()
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise ValueError(f"{path}: begins as UTF-16 and goes on as something else") from None
        raise ValueError(not_utf8(str(path), content, error.start)) from None


def not_utf8(where: str, content: bytes, start: int, line: int = 1) -> str:
    """Say of bytes whose first line has this number that they are no UTF-8 from a place on, and what they may be."""
    number = line + content.count(b"\n", 0, start)
    begin = content.rfind(b"\n", 0, start) + 1
    text = content[begin:].partition(b"\n")[0].rstrip(b"\r")
    shown = {}
    for encoding in OTHERS:
        with suppress(UnicodeDecodeError):
            place = len(text[: start - begin].decode(encoding, "ignore"))
            shown[encoding] = text.decode(encoding)[max(0, place - SHOWN) : place + SHOWN]
    told = ", ".join(f"as {encoding} it reads {near!r}" for encoding, near in list(shown.items())[:2])
    return f"{where}, line {number}: not UTF-8: {told or f'byte {start} is {content[start]:#04x}'}: save it as UTF-8"
