"""Make the charset files, and the table of simplified characters, from public standards.

wordmill/text/charsets/SOURCES.md says which. Those with Chinese characters need Unicode's Unihan data, version
15.0, as Debian 12's package unicode-data has it:
    apt-get install unicode-data
    python -m tools.build_charsets wordmill/text/charsets
The same data give the same bytes.
"""

import argparse
import bz2
import string
from pathlib import Path

UNIHAN = Path("/usr/share/unicode")

# Marks of Chinese texts and signs: of GB/T 15834-2011, its full-width forms, then currency, degree, times, and the
# zero of dates, which no table of characters has.
CHINESE_MARKS = "，。、；：？！“”‘’（）《》〈〉【】「」…—·～￥℃×〇"  # noqa: RUF001

# The 133 classes of the French Street Name Signs (Smith et al. 2016), null apart, sorted by code point.
FSNS = (
    " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]_abcdefghijklmnopqrstuvwxyz{|}"
    "£©«®°»ÀÂÆÇÈÉÊËÎÏÔÙÛÜàâäæçèéêëîïñôùûüÿŒœŸ€"
)
# Also written in its labels, where each counts as the class of ' or " or -.
FSNS_ALSO = "‘’“”—"  # noqa: RUF001

GENERAL_SIZE = 9998  # the published softmax of 10,000 classes without GO and STOP


def unihan(file: str, field: str) -> list[tuple[str, str]]:
    """Return (character, value) for each character that has the field in one of Unihan's files."""
    with bz2.open(UNIHAN / file, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines if line.startswith("U+")]
    return [(chr(int(code[2:], 16)), value) for code, name, value in rows if name == field]


def standard_characters() -> str:
    """Return the 8,105 characters of the Table of General Standard Chinese Characters (2013) in its order."""
    numbers = unihan("Unihan_OtherMappings.txt.bz2", "kTGH")
    places = {int(value.removeprefix("2013:")): symbol for symbol, value in numbers}
    return "".join(places[place] for place in range(1, 8106))


def traditional_forms(characters: str) -> str:
    """Return the traditional forms of simplified characters, in their order."""
    forms = dict(unihan("Unihan_Variants.txt.bz2", "kTraditionalVariant"))
    codes = (code for symbol in characters for code in forms.get(symbol, "").split())
    return "".join(chr(int(code[2:], 16)) for code in codes)


def simplifications(characters: str) -> dict[str, str]:
    """Return what each traditional form of these characters is written as, by code point of the form.

    The first simplified form that is among them and another character; where that is a traditional form again
    (苧 of 薴), its own, so that nothing that comes out changes any more.
    """
    forms: dict[str, str] = {}
    for symbol, value in unihan("Unihan_Variants.txt.bz2", "kSimplifiedVariant"):
        found = [chr(int(code[2:], 16)) for code in value.split()]
        chosen = next((form for form in found if form != symbol and form in characters), None)
        forms |= {symbol: chosen} if chosen else {}
    return {symbol: forms.get(form, form) for symbol, form in sorted(forms.items())}


def gb2312() -> str:
    """Return the 6,763 Chinese characters of GB 2312-1980 in its order: rows 16 to 87 of 94 cells, some empty."""
    cells = (bytes([row, cell]) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF))
    return "".join(cell.decode("gb2312", errors="ignore") for cell in cells)


def english94() -> str:
    """Return the printable ASCII characters without the space: digits, lower case, upper case, punctuation."""
    return string.digits + string.ascii_lowercase + string.ascii_uppercase + string.punctuation


def general9998(standard: str, traditional: str) -> str:
    """Return 9,998 characters of French signs, of Latin letters and of Chinese."""
    latin = "".join(filter(str.isalpha, map(chr, range(0x00C0, 0x0180))))
    signs = FSNS + FSNS_ALSO + english94() + latin + CHINESE_MARKS
    return "".join(dict.fromkeys(signs + standard + gb2312() + traditional))[:GENERAL_SIZE]


def write_charset(path: Path, symbols: str, count: int) -> None:
    """Write one character per line after checking how many different ones there are."""
    if not len(symbols) == len(set(symbols)) == count:
        raise ValueError(f"{path.name}: {len(symbols)} characters, {len(set(symbols))} different, expected {count}")
    path.write_text("".join(f"{symbol}\n" for symbol in symbols), encoding="utf-8", newline="\n")
    print(f"{path}: {count:,} characters")


def main() -> None:
    """Write every charset into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    standard = standard_characters()
    write_charset(out / "lower36.txt", string.digits + string.ascii_lowercase, 36)
    write_charset(out / "english94.txt", english94(), 94)
    write_charset(out / "fsns133.txt", FSNS, 133)
    # ASCII, Chinese punctuation and levels 1 and 2 of the table, the 6,500 characters of publishing.
    write_charset(out / "chinese6623.txt", english94() + CHINESE_MARKS + standard[:6500], 6623)
    write_charset(out / "general9998.txt", general9998(standard, traditional_forms(standard)), GENERAL_SIZE)
    rows = [f"{traditional}\t{simple}\n" for traditional, simple in simplifications(standard).items()]
    (out / "simplified.tsv").write_text("".join(rows), encoding="utf-8", newline="\n")
    print(f"{out / 'simplified.tsv'}: {len(rows):,} characters")


if __name__ == "__main__":
    main()
