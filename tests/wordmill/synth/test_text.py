import codecs
import lzma
import re

import pytest

from tools.word_lists import left_out, pack_words, stem_pattern
from wordmill.synth.random import Dice
from wordmill.synth.text import LISTS, WORD_LISTS, Writer, is_test_text, read_lists


def texts(part: str, count: int) -> list[tuple[str, str]]:
    writer = Writer(part)
    return [writer.write(Dice(part, index)) for index in range(count)]


def test_texts_of_the_two_parts_differ_whatever_their_case() -> None:
    train, test = ({label.lower() for _, label in texts(part, 5000)} for part in ("train", "test"))
    assert len(train) > 3000
    assert len(test) > 1000
    assert not train & test


@pytest.mark.parametrize("part", ["train", "test"])
def test_text_mix(part: str) -> None:
    drawn = texts(part, 4000)
    labels = [label for _, label in drawn]
    assert all(label.isascii() and label.isalnum() and len(label) <= 20 for label in labels)
    assert all([c for c in text if c.isalnum()] == list(label) for text, label in drawn)
    assert set("$%&.,'-!:/#?()") <= {c for text, _ in drawn for c in text}
    assert 0.12 < sum(text != label for text, label in drawn) / 4000 < 0.19
    assert 0.10 < sum(label.isdigit() for label in labels) / 4000 < 0.20
    assert sum(len(label) <= 8 for label in labels) / 4000 > 0.75
    assert min(sum(map(case, labels)) for case in (str.isupper, str.islower, str.istitle)) > 400


@pytest.mark.parametrize(
    ("stem", "words", "others"),
    [
        ("din", "din dins dinned dinner dinning dinny", "dine dines diner dining dinghy odin"),
        ("moan", "moan moans moaned moaning", "moana bemoan"),
        ("bake", "bake bakes baked bakers baking", "bak baklava unbaked"),
        ("pony", "pony ponies", "pon ponytail"),
        ("*rain*", "rain train trains brainy", "ran"),
    ],
)
def test_a_stem_stands_for_its_inflections(stem: str, words: str, others: str) -> None:
    assert [w for w in (words + " " + others).split() if re.fullmatch(stem_pattern(stem), w)] == words.split()


def test_word_lists_leave_out_rude_words_but_not_their_harmless_neighbours() -> None:
    words = {w for path in WORD_LISTS.values() for w in lzma.decompress(path.read_bytes()).decode("ascii").split()}
    rude = codecs.decode("shpxvat phagf avttref snttbgf encvat fyhgf jnaxref jubevat cbea", "rot13").split()
    assert not words & set(rude)
    assert words >= {
        "assess",
        "cocktail",
        "grape",
        "scrape",
        "rapier",
        "spice",
        "suspicious",
        "snigger",
        "title",
        "yiddish",
        "sextant",
        "document",
        "manuscript",
        "dickens",
        "pimple",
        "retardant",
        "whorl",
        "swank",
    }
    assert lzma.decompress(pack_words({"swan", "title", *rude})) == b"swan\ntitle"
    assert not any(map(left_out().fullmatch, words))


def test_single_characters_belong_to_training() -> None:
    assert not any(map(is_test_text, "0123456789abcXYZ"))


def test_words_are_about_as_long_as_those_of_signs() -> None:
    lengths = [len(label) for _, label in texts("train", 4000)]
    assert 0.74 < sum(length <= 6 for length in lengths) / 4000 < 0.82
    assert 0.04 < sum(length > 9 for length in lengths) / 4000 < 0.12


def test_lists_have_their_sections_and_nothing_is_empty() -> None:
    titles = {
        "shapes": ["shapes"],
        "chinese": ["words", "tails", "marks"],
        "french": ["kinds", "first names", "last names", "titles", "things"],
    }
    assert {name: list(read_lists(name)) for name in LISTS} == titles
    assert all(item.strip() for name in LISTS for items in read_lists(name).values() for item in items)
    assert "de la République" in read_lists("french")["things"]
