"""Characters that a recogniser can write."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components.recognition.recipe import Data, nearest

FOLDER = Path(__file__).resolve().parent / "charsets"  # what is built in; SOURCES.md there says where it comes from


@dataclass(frozen=True, kw_only=True)
class Charset:
    """An ordered set of characters."""

    name: str
    symbols: str

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    @cached_property
    def _cases(self) -> tuple[bool, bool]:
        """Whether the set has upper-case letters, and whether it has lower-case ones."""
        return any(map(str.isupper, self.symbols)), any(map(str.islower, self.symbols))

    def fold(self, text: str) -> str:
        """Return the text in the case that this charset writes: lowered, raised, or, where it has both, as it is."""
        upper, lower = self._cases
        if upper and lower:
            return text
        return text.upper() if upper else text.lower()

    def clean(self, text: str) -> str:
        """Return the folded text without the characters that are not in the charset."""
        return "".join(symbol for symbol in self.fold(text) if symbol in self._numbers)

    def numbers(self, text: str) -> list[int]:
        """Return the places, from 0, of the text's characters in the charset; characters outside it are left out."""
        return [self._numbers[symbol] for symbol in self.fold(text) if symbol in self._numbers]


def charset_of(data: Data) -> Charset:
    """Return the characters of a recipe's data section."""
    charset = load_charset(data.charset)
    if not data.space:
        return charset
    if " " in charset.symbols:
        raise ValueError(f"data.space: charset {data.charset} has the space already: leave the key out")
    return Charset(name=charset.name, symbols=f"{charset.symbols} ")


def built_in() -> list[str]:
    """Return the names of the charsets that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def load_charset(name: str) -> Charset:
    """Return a built-in charset, or the one in a UTF-8 file with one character per line (`name` ends in .txt)."""
    if name.endswith(".txt"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"charset {path}: no such file")
    elif name in built_in():
        path = FOLDER / f"{name}.txt"
    else:
        raise ValueError(f"charset '{name}': {nearest(name, built_in())}, or the path of a .txt file")
    return Charset(name=path.stem, symbols=_read(path))


def _read(path: Path) -> str:
    """Return the characters of a file in the order of its lines; ValueError names the line that is wrong.

    A byte order mark, CRLF, and a last line without its end are all right; a combining mark is a character as any
    other, as Thai and Hindi need it.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"charset {path}: not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None
    symbols: dict[str, int] = {}
    # Not `splitlines`, to which characters such as U+2028 are ends of lines.
    for number, line in enumerate(re.split(r"\r?\n", re.sub(r"\r?\n\Z", "", text)), start=1):
        where = f"charset {path}, line {number}"
        if len(line) != 1:
            raise ValueError(f"{where}: expected one character, found {len(line)}: {line!a}")
        if not line.isprintable():
            raise ValueError(
                f"{where}: U+{ord(line):04X} cannot be seen: the one blank that is allowed is the space U+0020"
            )
        if line in symbols:
            raise ValueError(f"{where}: {line!r} stands on line {symbols[line]} already")
        symbols[line] = number
    return "".join(symbols)
