"""What each kind of rendered set draws: faces, Chinese lines, French street signs."""

from pathlib import Path

import numpy as np
import pytest

from wordmill.pictures.image import fit_picture
from wordmill.recipe.loading import load_recipe
from wordmill.synth.chinese import Lines, common_characters
from wordmill.synth.fonts import ATLAS, CHINESE_ATLAS, LETTER_ATLAS, SIGN_ATLAS, Faces, read_atlas
from wordmill.synth.french import Streets, lines_of
from wordmill.synth.random import Dice
from wordmill.synth.renderer import SynthSpec, render
from wordmill.synth.text import read_lists
from wordmill.text.charset import charset_of, load_charset

ROOT = Path(__file__).parents[3]
DATA = ROOT / "wordmill" / "synth" / "data"
RECIPES = sorted((ROOT / "pipelines" / "recipes").glob("*.yaml"))


def test_parts_share_no_family_and_together_hold_all() -> None:
    train, test = ({face.family for family in Faces(part).families for face in family} for part in ("train", "test"))
    assert not train & test
    assert train | test == {face.family for face in read_atlas(ATLAS)}
    assert 0.10 < len(test) / len(train | test) < 0.20


def test_atlas_is_rich_and_every_face_has_all_letters_and_digits() -> None:
    faces = read_atlas(ATLAS)
    assert len(faces) >= 400
    assert len({face.family for face in faces}) >= 250
    needed = set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    for face in faces[::10]:
        assert needed <= set(face.glyphs())
        assert all(glyph.alpha.max() > 100 for glyph in face.glyphs().values())


def test_display_faces_are_rare_but_where_they_may_be_showy() -> None:
    faces = Faces("train")
    share = [
        sum(faces.draw(Dice("face", i), showy=showy).package == "aenigma" for i in range(3000)) / 3000
        for showy in (False, True)
    ]
    assert share[1] > 1.5 * share[0] > 0.1


def test_a_space_moves_the_pen_by_ten_pixels() -> None:
    face = read_atlas(SIGN_ATLAS)[0]
    close, apart = (face.line(text, 0.0, 0.0, Dice(1)) for text in ("AV", "A V"))
    assert apart.shape == (close.shape[0], close.shape[1] + 10)


@pytest.mark.parametrize(
    ("licences", "atlases"), [("LICENCES", [ATLAS, LETTER_ATLAS]), ("LICENCES_scripts", [CHINESE_ATLAS, SIGN_ATLAS])]
)
def test_licences_name_every_package_and_face(licences: str, atlases: list[Path]) -> None:
    text = (DATA / licences).read_text(encoding="utf-8")
    for face in (face for atlas in atlases for face in read_atlas(atlas)):
        assert f"fonts-{face.package} " in text
        assert face.name in text
    assert all(title in text for title in ("SIL OPEN FONT LICENSE", "Apache License"))
    assert ("Kevin Atkinson" in text) == (licences == "LICENCES")


def test_chinese_faces_have_every_character_of_the_charset() -> None:
    faces = read_atlas(CHINESE_ATLAS)
    assert len(faces) == 2
    for face in faces:
        assert set(face.glyphs()) == set(load_charset("chinese6623").symbols)


def test_common_characters_are_the_first_level_of_the_standard() -> None:
    characters = common_characters()
    assert len(characters) == len(set(characters)) == 3755  # as GB 2312 counts them
    assert characters[0] == "啊"
    assert characters[-1] == "座"


def test_chinese_texts_of_the_two_parts_differ_and_reach_rare_characters() -> None:
    writers = [Lines(part, "easy") for part in ("train", "test")]
    parts = [[writer.write(Dice("chinese", i)) for i in range(4000)] for writer in writers]
    train, test = ({text for text in part if len(text) > 1} for part in parts)
    assert len(train) > 2500
    assert not train & test
    for texts in parts:
        assert all(1 <= len(text) <= 16 for text in texts)
        assert set("".join(texts)) <= set(load_charset("chinese6623").symbols)
    used = set("".join(parts[0]))
    assert len(used) > 3000
    assert len(used - set(common_characters())) > 500


def test_chinese_lines_are_as_wide_as_their_text() -> None:
    spec = SynthSpec(kind="chinese", seed=1, count=200, words="train", difficulty="mixed")
    samples = list(render(spec, 0, 200))
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 and 26 <= len(image) <= 40 for image, _ in samples)
    ratio = {n: [i.shape[1] / i.shape[0] for i, label in samples if len(label) == n] for n in (1, 4)}
    assert np.median(ratio[1]) < 1.6
    assert 2.2 < np.median(ratio[4]) < 4.5


def test_street_names_are_french_short_enough_and_can_be_drawn() -> None:
    train, test = ([Streets(part).write(Dice("street", i)) for i in range(3000)] for part in ("train", "test"))
    assert not set(train) & set(test)
    assert len(set(train)) > 1500
    characters = set("".join(train + test))
    assert characters <= set(load_charset("fsns133").symbols) & set(load_charset("general9998").symbols)
    assert characters >= set("àâçèéêëîïôûœÉÂ'-18")
    drawable = set(read_atlas(SIGN_ATLAS)[0].characters) | {" "}
    assert set("".join(train + test) + "".join(train + test).upper()) <= drawable
    assert all(6 < len(name) <= 37 and name.split()[0] in read_lists("french")["kinds"] for name in train + test)


def test_names_are_broken_into_lines_behind_large_words_only() -> None:
    found = set()
    for key in range(60):
        lines = lines_of("Rue de la Paix", Dice(key))
        assert " ".join(lines) == "Rue de la Paix"
        assert all(line.split()[-1] not in ("de", "la") for line in lines)
        found.add(len(lines_of("Avenue Albert Dupont", Dice(key))))
    assert found == {1, 2, 3}


def test_signs_are_four_views_of_one_plate() -> None:
    spec = SynthSpec(kind="signs", seed=1, count=12, words="train", difficulty="easy")
    blue = 0
    for image, _ in render(spec, 0, 12):
        assert image.shape == (150, 600, 3)
        views = np.split(image, 4, axis=1)
        assert len({view.tobytes() for view in views}) == 4
        middle = np.concatenate([view[55:95, 40:110].reshape(-1, 3) for view in views]).astype(int)
        blue += (middle[:, 2] > middle[:, 0] + 30).mean() > 0.3
    assert blue >= 6  # most plates are white on blue


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_tried_on_rendered_pictures(recipe: Path) -> None:
    data = load_recipe(recipe).data
    kind = {"chinese6623": "chinese", "general9998": "signs"}.get(data.charset, "words")
    colour = "1" if kind == "words" and data.channels == 3 else "0"
    spec = SynthSpec(kind=kind, seed=1, count=10, words="train", difficulty="mixed", colour=colour)
    charset = charset_of(data)
    for image, label in render(spec, 0, 10):
        assert fit_picture(image, data).shape == (data.height, data.width, data.channels)
        assert charset.clean(label) == charset.fold(label)
