import string
from pathlib import Path

import pytest

from tools.build_charsets import CHINESE_MARKS, FSNS, FSNS_ALSO, english94, gb2312
from wordmill.recipe.sections import Data
from wordmill.text.charset import Charset, built_in, charset_of, load_charset, unusual

LOWER36 = load_charset("lower36")
PLATES = Charset(name="plates", symbols=string.digits + string.ascii_uppercase)
CASED = Charset(name="cased", symbols="abAB")


def data(charset: str, space: bool) -> Data:
    return Data(train=(), val=(), charset=charset, height=32, width=100, channels=1, space=space)


def test_lower36_has_digits_first() -> None:
    assert LOWER36.numbers("0a9Z") == [0, 10, 9, 35]


@pytest.mark.parametrize(
    ("label", "clean"),
    [("IT'S", "its"), ("$5.00", "500"), ("New York", "newyork"), ("Café", "caf"), ("!!!", ""), ("", "")],
)
def test_characters_outside_the_charset_are_deleted(label: str, clean: str) -> None:
    assert LOWER36.clean(label) == clean
    assert [LOWER36.symbols[number] for number in LOWER36.numbers(label)] == list(clean)


@pytest.mark.parametrize(
    ("charset", "text", "folded"),
    [
        (LOWER36, "Ab-1É", "ab-1é"),  # no upper-case letter: lowered
        (PLATES, "kl 07-é", "KL 07-É"),  # no lower-case letter: raised
        (CASED, "Ab1", "Ab1"),  # both: as it is
        (Charset(name="greek", symbols="αβγ"), "ΑΒΓ", "αβγ"),
        (Charset(name="digits", symbols="0123456789"), "7b", "7b"),  # neither
        (Charset(name="plain", symbols="中文"), "中", "中"),
    ],
)
def test_labels_take_the_case_that_the_charset_writes(charset: Charset, text: str, folded: str) -> None:
    assert charset.fold(text) == folded


def test_number_plates_keep_small_letters_by_raising_them() -> None:
    assert PLATES.clean("ab 12-c") == "AB12C"
    assert PLATES.numbers("a0") == [10, 0]


SIZES = {"lower36": 36, "english94": 94, "fsns133": 133, "chinese6623": 6623, "general9998": 9998}


def test_the_built_in_charsets_are_these() -> None:
    assert built_in() == sorted(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_built_in_charset_has_as_many_characters_as_its_name_says(name: str) -> None:
    symbols = load_charset(name).symbols
    assert len(symbols) == len(set(symbols)) == SIZES[name]
    assert all(symbol.isprintable() for symbol in symbols)


def test_the_files_without_chinese_are_as_the_tool_writes_them() -> None:
    assert LOWER36.symbols == "0123456789abcdefghijklmnopqrstuvwxyz"
    assert load_charset("english94").symbols == english94() == string.printable[:94]
    assert load_charset("fsns133").symbols == FSNS == "".join(sorted(FSNS))


def test_chinese6623_is_ascii_marks_and_the_standards_first_two_levels() -> None:
    symbols = load_charset("chinese6623").symbols
    assert symbols[:123] == english94() + CHINESE_MARKS
    table = symbols[123:]
    # Each level goes by the number of strokes: from one to 24 in the first, from 2 to 36 in the second.
    assert table[:10] == "一乙二十丁厂七卜八人"
    assert (table[3499], table[3500], table[6499]) == ("矗", "乂", "齉")
    # An older standard's 3,755 most frequent characters, but for four that have another form by now.
    assert set(gb2312()[:3755]) - set(table) == set("矽楞磺硷")


def test_general9998_covers_french_signs_latin_and_both_chinese_standards() -> None:
    symbols = load_charset("general9998").symbols
    assert symbols[:138] == FSNS + FSNS_ALSO
    assert set(load_charset("chinese6623").symbols) < set(symbols)
    assert len(gb2312()) == 6763
    assert set(gb2312()) < set(symbols)
    assert set("ŁłŐőŠšß") < set(symbols)
    assert set("萬與東車門") < set(symbols)


def test_the_space_comes_last_where_the_recipe_asks_for_it() -> None:
    assert charset_of(data("lower36", space=False)) == LOWER36
    spaced = charset_of(data("lower36", space=True))
    assert spaced.symbols == f"{LOWER36.symbols} "
    assert spaced.clean("New York!") == "new york"
    assert spaced.numbers(" ") == [36]


def test_a_second_space_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.space: charset fsns133 has the space already: leave the key out"):
        charset_of(data("fsns133", space=True))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="charset 'lower63': did you mean 'lower36'.*or the path of a .txt file"):
        load_charset("lower63")


def test_charsets_are_joined_each_character_once_and_in_order(tmp_path: Path) -> None:
    own, other = tmp_path / "own+mine.txt", tmp_path / "other.txt"
    own.write_text("é\na\n", encoding="utf-8")
    other.write_text("é\nß \n", encoding="utf-8")
    assert load_charset(f"lower36+{other}").symbols == f"{LOWER36.symbols}éß"
    assert load_charset(f"lower36+{other}").name == "lower36+other"
    assert load_charset(str(own)).symbols == "éa"  # a file's own plus joins nothing
    assert unusual(f"lower36+{other}") == f"charset {other}: blanks beside the character are left out on line 2"
    with pytest.raises(ValueError, match="charset 'lower63': did you mean 'lower36'"):
        load_charset(f"{own.with_name('other.txt')}+lower63")


def test_characters_outside_are_listed_once_in_the_charsets_case() -> None:
    assert (LOWER36.outside("É-é-É"), LOWER36.outside("Abc1"), CASED.outside("aCc")) == ("é-", "", "Cc")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.txt: no such file"):
        load_charset(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("content", "symbols"),
    [
        (b"a\nB\n", "aB"),
        (b"a\nB", "aB"),  # no end of the last line
        (b"\xef\xbb\xbfa\r\nB\r\n", "aB"),  # as Windows writes it
        ("a\r\nB\r\n".encode("utf-16"), "aB"),
        (b" \n#\n", " #"),  # the space, and no comments
        (b"a\n\t\n", "a\t"),
        (b"a \n\tb\t\n", "ab"),  # blanks beside a character
        ("\u3000\n\u200b\n\u00ad\n\u200c\n\u200d\n".encode(), "\u3000\u200b\u00ad\u200c\u200d"),
        ("a\n\u00a0\n\u2028\n\u0085\n\ufeff\n".encode(), "a\u00a0\u2028\u0085\ufeff"),
        ("\ue000\n\U000f0000\n\x07\n".encode(), "\ue000\U000f0000\x07"),  # private use, a control character
        ("\u0e01\n\u0e31\n\U0002b86f\n".encode(), "\u0e01\u0e31\U0002b86f"),  # a combining mark; beyond 16 bits
    ],
)
def test_an_own_file_has_one_character_per_line(content: bytes, symbols: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    assert load_charset(str(path)) == Charset(name="mine", symbols=symbols)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a\nbc\n", r"line 2: expected one character, found 2: 'bc'"),
        (b"a\n\nb\n", r"line 2: expected one character, found 0: ''"),
        (b"a\nb\n\n", r"line 3: expected one character, found 0: ''"),
        (b"", r"line 1: expected one character, found 0: ''"),
        (b"a\n  \n", r"line 2: expected one character, found 2: '  ': take the line out, or write the one"),
        ("e\u0301\n".encode(), r"line 1: .* 'e\\u0301': write U\+00E9 LATIN SMALL LETTER E WITH ACUTE, or each"),
        ("\u0915\u094d\u0937\n".encode(), r"line 1: expected one character, found 3: .*: write each on a line of its"),
        (b"a\nb\na\n", r"line 3: 'a' stands on line 1 already: to keep a class of weights that use it, write"),
        (b"a\nb\na \n", r"line 3: 'a' stands on line 1 already"),
        (b"a\rb\n", r"line 1: expected one character, found 3: 'a\\rb': end the lines with LF or CRLF"),
        (b"a\n\0\n", r"line 2: U\+0000 ends texts in other programs"),
        (b"\xef\xbb\xbf\nb\n", r"line 1: expected one character, found 0: ''"),
        (b"a\n\xe9\n", r"line 2: not UTF-8: as cp1252 it reads 'é': save it as UTF-8"),
    ],
)
def test_a_wrong_line_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"mine\.txt, {said}"):
        load_charset(str(path))


def test_words_with_joiners_are_spelled_with_them(tmp_path: Path) -> None:
    words = ["\u0645\u06cc\u200c\u0631\u0648\u062f", "\u0d05\u0d35\u0d28\u0d4d\u200d"]  # Persian, Malayalam
    path = tmp_path / "joined.txt"
    path.write_text("\n".join(dict.fromkeys("".join(words))) + "\n", "utf-8")
    charset = load_charset(str(path))
    for word in words:
        assert charset.holds(word)
        assert charset.clean(word) == word
        numbers, lengths = charset.spell([word])
        assert ("".join(charset.symbols[number] for number in numbers), lengths.tolist()) == (word, [len(word)])


def test_what_is_unusual_in_a_charset_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("a\n\u200c\nb \n \n\ue000\n".encode())
    assert unusual(str(path)) == (
        f"charset {path}: 2 of 5 characters cannot be seen: U+200C ZERO WIDTH NON-JOINER (line 2), U+E000 (line 5); "
        "blanks beside the character are left out on line 3"
    )
    assert [unusual(name) for name in built_in()] == [""] * len(SIZES)
