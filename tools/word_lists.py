"""The word lists of the word-image renderer: English words without those that are rude to show.

`left_out_words.txt` holds stems in ROT13, so that nobody has to read them by chance. A stem stands for itself and its
inflections, since a short one is part of many harmless words; `*` in a stem stands for any letters.
"""

import codecs
import lzma
import re
from functools import cache
from pathlib import Path

STEMS = Path(__file__).with_name("left_out_words.txt")


def stem_pattern(stem: str) -> str:
    """A regular expression for the words that a stem stands for."""
    if "*" in stem:
        return stem.replace("*", "[a-z]*")
    if stem.endswith("e"):
        return f"{stem[:-1]}(?:e[ds]?|ers?|ings?)"
    if stem.endswith("y"):
        return f"{stem[:-1]}(?:y|ie[srd]|iest)"
    # A single consonant after a single vowel is doubled: without this, "diner" would go with a stem "din".
    doubled = stem[-1] if re.search(r"(?:^|[^aeiou])[aeiouy][bcdfgklmnprtz]$", stem) else ""
    return f"{stem}(?:s|{doubled}(?:es|ed|ers?|ings?|y|ie[srd]|iest))?"


@cache
def left_out() -> re.Pattern[str]:
    """Matches, as a whole, each lower-case word that is left out."""
    lines = STEMS.read_text(encoding="ascii").splitlines()
    stems = codecs.decode("\n".join(line for line in lines if not line.startswith("#")), "rot13").split()
    return re.compile("|".join(map(stem_pattern, stems)))


def pack_words(words: set[str]) -> bytes:
    """One word list as it is stored: what is not left out, sorted, one word a line, compressed."""
    kept = sorted(word for word in words if not left_out().fullmatch(word))
    return lzma.compress("\n".join(kept).encode(), preset=9)
