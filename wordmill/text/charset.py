"""Characters that a recogniser can write."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wordmill.recipe.parsing import nearest
from wordmill.recipe.plain import read_text
from wordmill.recipe.sections import Data

FOLDER = Path(__file__).resolve().parent / "charsets"  # what is built in; SOURCES.md there says where it comes from
NAMED = 8  # unusual characters in a message
PLACEHOLDER = "to keep a class of weights that use it, write a character that no label has, such as U+E000"
SEPARATOR, OUTSIDE = -1, -2  # in place of a character's number


@dataclass(frozen=True, kw_only=True)
class Charset:
    """An ordered set of characters."""

    name: str
    symbols: str

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    @cached_property
    def _members(self) -> frozenset[str]:
        return frozenset(self.symbols)

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

    def holds(self, text: str) -> bool:
        """Tell whether every character of a folded text is in the charset."""
        return self._members.issuperset(text)

    def outside(self, text: str) -> str:
        """Return the characters of the folded text that are not in the charset, each once, in order."""
        folded = self.fold(text)
        return "" if self.holds(folded) else "".join(dict.fromkeys(c for c in folded if c not in self._members))

    def clean(self, text: str) -> str:
        """Return the folded text without the characters that are not in the charset."""
        return "".join(symbol for symbol in self.fold(text) if symbol in self._numbers)

    @cached_property
    def _table(self) -> npt.NDArray[np.int64]:
        """The number of every code point up to the charset's last, SEPARATOR for NUL, OUTSIDE for others and beyond."""
        table = np.full(max(map(ord, self.symbols), default=0) + 2, OUTSIDE)
        table[0] = SEPARATOR
        table[[ord(symbol) for symbol in self.symbols]] = np.arange(len(self.symbols))
        return table

    def spell(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return `numbers` of all texts, one behind the other, and how many each text has, (N,); no text has a NUL."""
        joined = self.fold("\0".join(["", *texts])).encode("utf-32-le", "surrogatepass")
        numbers = self._table[np.minimum(np.frombuffer(joined, dtype="<u4"), len(self._table) - 1)]
        numbers = numbers[numbers != OUTSIDE]
        starts = np.flatnonzero(numbers == SEPARATOR)
        if len(starts) != len(texts):
            raise ValueError(f"{len(texts)} texts have {len(starts) - len(texts)} NUL characters, expected none")
        return numbers[numbers != SEPARATOR], np.diff(starts, append=len(numbers)) - 1

    def numbers(self, text: str) -> list[int]:
        """Return the places, from 0, of the text's characters in the charset; characters outside it are left out."""
        return [self._numbers[symbol] for symbol in self.fold(text) if symbol in self._numbers]


def to_ascii(text: str) -> str:
    """Return a text with accents and ligatures resolved, and the rest beyond ASCII left out."""
    return text if text.isascii() else unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


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
    """Return a built-in charset, or the one in a UTF-8 file with one character per line (`name` ends in .txt).

    `a+b` is the charset a with those characters of b behind it that it lacks, and so on.
    """
    paths = [_path(part) for part in _parts(name)]
    symbols = dict.fromkeys(symbol for path in paths for symbol in _lines(path))
    return Charset(name="+".join(path.stem for path in paths), symbols="".join(symbols))


def unusual(name: str) -> str:
    """Say what is unusual about a charset: characters that nobody sees, blanks that were left out; "" for nothing."""
    return "; ".join(filter(None, (_unusual(_path(part)) for part in _parts(name))))


def _unusual(path: Path) -> str:
    lines = _lines(path)
    unseen = [f"{_named(symbol)} (line {number})" for number, symbol in enumerate(lines, 1)
              if symbol != " " and not symbol.isprintable()]  # fmt: skip
    blank = [str(number) for number, line in enumerate(lines.values(), 1) if len(line) > 1]
    told = [f"{len(unseen)} of {len(lines)} characters cannot be seen: {', '.join(unseen[:NAMED])}"] if unseen else []
    told += [f"blanks beside the character are left out on line {', '.join(blank[:NAMED])}"] if blank else []
    return f"charset {path}: {'; '.join(told)}" if told else ""


def _parts(name: str) -> list[str]:
    """Return the charsets that a name joins; a file's name may have a plus of its own."""
    return [name] if Path(name).is_file() else name.split("+")


def _path(name: str) -> Path:
    if name.endswith(".txt"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"charset {path}: no such file")
        return path
    if name in built_in():
        return FOLDER / f"{name}.txt"
    raise ValueError(f"charset '{name}': {nearest(name, built_in())}, or the path of a .txt file")


def _lines(path: Path) -> dict[str, str]:
    """Return the characters of a file in the order of its lines, with the lines; ValueError names one that is wrong.

    A character is a code point, a combining mark or a joiner too, as Thai, Hindi and Persian need them, whether it can
    be seen or not. A byte order mark, CRLF, and a last line without its end are all right.
    """
    text = read_text(path)
    found: dict[str, str] = {}
    # Not `splitlines`, to which characters such as U+2028 are ends of lines.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        where, symbol = f"charset {path}, line {number}", line if len(line) == 1 else line.strip(" \t")
        if len(symbol) != 1:
            raise ValueError(f"{where}: expected one character, found {len(line)}: {line!a}: {_advice(line)}")
        if symbol == "\0":
            raise ValueError(f"{where}: U+0000 ends texts in other programs: {PLACEHOLDER}")
        if symbol in found:
            earlier = list(found).index(symbol) + 1
            raise ValueError(f"{where}: {symbol!r} stands on line {earlier} already: {PLACEHOLDER}")
        found[symbol] = line
    return found


def _advice(line: str) -> str:
    """Say what to write in place of a line that is not one character."""
    if not line.strip(" \t"):
        return f"take the line out, or write the one character that it stands for; {PLACEHOLDER}"
    if len(composed := unicodedata.normalize("NFC", line)) == 1:
        return f"write {_named(composed)}, or each of its characters on a line of its own, as the labels have it"
    if "\r" in line:
        return "end the lines with LF or CRLF"
    return f"write each on a line of its own; {PLACEHOLDER}"


def _named(symbol: str) -> str:
    """Return a character's code and name."""
    return f"U+{ord(symbol):04X} {unicodedata.name(symbol, '')}".rstrip()
