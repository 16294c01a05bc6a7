"""Words with given characters: what is drawn, in which faces, and what cannot be."""

import pytest

from wordmill.synth.fonts import CHINESE_ATLAS, LETTER_ATLAS, is_test_family, read_atlas
from wordmill.synth.letters import LetteredWords, drawable, placed, plain
from wordmill.synth.random import Dice
from wordmill.synth.renderer import Renderer, SynthSpec
from wordmill.synth.text import MAX_LABEL, is_test_text

ADDRESS = "synth://words?seed=7&count=100&fonts=train&words=train&difficulty=mixed"


def labels(characters: str, count: int, words: str = "train") -> list[str]:
    artist = LetteredWords("train", words, "easy", 1, characters)
    return [artist.draw(Dice("letters", index))[1] for index in range(count)]


def test_every_word_has_one_of_the_characters_each_as_often() -> None:
    found = labels("éçñ", 150)
    assert all(set(label) & set("éçñ") for label in found)
    assert all(0 < len(label) <= MAX_LABEL and not is_test_text(label) for label in found)
    assert all(sum(symbol in label for label in found) > 35 for symbol in "éçñ")


def test_accents_stand_where_the_word_has_their_letter() -> None:
    assert placed("hotel", "é", ["é"], Dice(1)) == "hotél"
    assert placed("a-b", "-", ["-"], Dice(1)) == "a-b"  # it stands there already
    assert {placed("bcd", "é", ["é"], Dice(number)) for number in range(40)} == {"écd", "béd", "bcé"}
    assert {placed("ee", "é", ["é", "è"], Dice(number)) for number in range(800)} >= {"ée", "eé", "éè", "èé"}


def test_signs_are_written_and_other_signs_are_not() -> None:
    found = labels("-", 60)
    assert all("-" in label for label in found)
    assert set("".join(found)) <= set("-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def test_held_out_words_stay_held_out() -> None:
    assert all(is_test_text(label) for label in labels("é", 30, words="test"))


@pytest.mark.parametrize(("symbol", "letter"), [("é", "e"), ("Ç", "C"), ("ễ", "e"), ("ß", ""), ("e", ""), ("ж", "")])
def test_what_is_left_without_accents(symbol: str, letter: str) -> None:
    assert plain(symbol) == letter


def test_what_a_face_has_can_be_drawn() -> None:
    assert drawable("é中ж€\u0e01") == "é中ж€"
    with pytest.raises(ValueError, match="characters: no face has '\u0e01'"):
        SynthSpec.parse(f"{ADDRESS}&characters=%C3%A9%E0%B8%81")


def test_characters_of_an_address_decide_on_the_picture() -> None:
    plain_words, given = SynthSpec.parse(ADDRESS), SynthSpec.parse(f"{ADDRESS}&characters=%C3%A9")
    assert (plain_words.characters, given.characters) == ("", "é")
    image, label = Renderer(given).sample(0)
    assert image.shape == (32, 100)
    assert "é" in label
    assert Renderer(plain_words).sample(0)[0].tobytes() != image.tobytes()


def test_faces_are_split_by_family_and_have_the_letters_of_western_europe() -> None:
    faces = read_atlas(LETTER_ATLAS)
    train = {face.family for face in faces if not is_test_family(face.family)}
    assert len(train) >= 40
    assert all(set("aZ09àéîõüçßÅØ") <= set(face.glyphs()) for face in faces[::10])
    assert sum("ж" in face.glyphs() for face in faces[::4]) >= 3
    assert len(read_atlas(CHINESE_ATLAS)) == 2
