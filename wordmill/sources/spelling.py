"""How other systems spell the name of a file: in another normal form, encoding or case."""

import os
import unicodedata
from contextlib import suppress

# Of names that are not UTF-8: of Windows and DOS, and of Unix before it.
ENCODINGS = ("gb18030", "cp932", "euc_jp", "big5", "euc_kr", "cp437", "cp850", "cp1252", "cp1250", "cp866", "cp1251",
             "koi8_r", "cp1253", "cp1254", "cp874")  # fmt: skip


def spellings(path: str) -> set[bytes]:
    """Return the bytes under which a path may lie on a disk, in either normal form or in another encoding.

    An archive's backslashes have become slashes, also where Shift-JIS, GBK and Big5 end a character with that byte.
    """
    spelled = {unicodedata.normalize(form, path).encode("utf-8", "replace") for form in ("NFC", "NFD")}
    spelled.add(path.encode("utf-8", "replace"))
    if not path.isascii():
        for encoding in ENCODINGS:
            with suppress(UnicodeError):
                spelled.add(path.encode(encoding))
    return spelled | {one.replace(b"\\", b"/") for one in spelled}


def alike(name: str) -> str:
    """Return a name in the form in which two are equal that differ in case or normal form alone."""
    return unicodedata.normalize("NFC", name).casefold()


def ends_alike(path: str, end: str) -> bool:
    """Tell whether a path ends with another, whole names of it, as somebody else spells that."""
    place = b"/" + os.fsencode(path)
    if place.endswith(tuple(b"/" + one.rstrip(b"/") for one in spellings(end))):
        return True
    return f"/{alike(path)}".endswith(f"/{alike(end)}")
