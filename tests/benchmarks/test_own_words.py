from pathlib import Path

from benchmarks.own_words import ACCENTS, accented, drawn, parted, unseen, write_folder
from wordmill.synth.fonts import is_test_family
from wordmill.synth.random import Dice


def test_words_are_drawn_in_faces_that_no_training_picture_has() -> None:
    faces = unseen()
    assert all(is_test_family(face.family) for face in faces)
    assert {"lobster", "tex"} < {face.family for face in faces}
    assert set("àâçéèêîôùû") <= set(faces[0].glyphs())


def test_every_second_word_has_characters_that_are_new_to_the_recogniser() -> None:
    labels = [label for _, label in drawn(1, 20, unseen())]
    new = set("".join(ACCENTS.values()))
    assert len(new) == 10
    assert [bool(set(label) & new) for label in labels] == [False, True] * 10
    assert labels == [label for _, label in drawn(1, 20, unseen())]
    assert labels != [label for _, label in drawn(0, 20, unseen())]


def test_all_of_one_letter_gets_an_accent() -> None:
    text, label = accented("ici!", "ici", Dice(1))
    assert (text, label) in {("içi!", "içi"), ("îcî!", "îcî")}


def test_crops_are_parted_at_random_and_each_is_in_one_part(tmp_path: Path) -> None:
    samples = drawn(2, 8, unseen())
    write_folder(tmp_path / "crops", samples)
    tune, measure = parted(tmp_path / "crops", "labels.txt", "dtrb", 3)
    assert (len(tune), len(measure)) == (3, 5)
    assert sorted([*tune, *measure]) == sorted(samples)
    assert tune != samples[:3]
