import codecs
import hashlib
import itertools
import lzma
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from components.recognition.synth import Renderer, SynthSpec, atlas_digest, contact_sheet, render
from components.recognition.synth_backdrop import Backdrops
from components.recognition.synth_effects import blend
from components.recognition.synth_fonts import PAD, Faces, read_atlas
from components.recognition.synth_geometry import Warp, place, sample
from components.recognition.synth_random import Dice
from components.recognition.synth_text import WORD_LISTS, Writer, is_test_text
from tools.word_lists import left_out, pack_words, stem_pattern

ROOT = Path(__file__).parents[2]
GOLDEN = {
    "easy": "8385a4d0d851f163d88e11a1a2229885255bbe7d53134540aebf515c7a383539",
    "hard": "7e8966c87033ae6c6659703bee7f1eea4d0844a266c377fce9c368d441bde279",
    "mixed": "f37200bbdccd207a7c5f9b1a1edf6716455eab58b3bae8890784076d1b493469",
}
STILL = Warp(turn=0.0, wild_turn=0.0, shear=0.0, perspective=0.0, corner=0.0, curve=0.0, sag=0.0, loose=0.0, tight=0.0)


def spec(difficulty: str = "mixed", fonts: str = "train", words: str = "train", seed: int = 7) -> SynthSpec:
    return SynthSpec(seed=seed, count=1000, fonts=fonts, words=words, difficulty=difficulty)


def digest(difficulty: str) -> str:
    """SHA-256 over 64 pictures and their labels."""
    content = hashlib.sha256()
    for image, label in render(spec(difficulty), 0, 64):
        content.update(image.tobytes() + label.encode())
    return content.hexdigest()


@pytest.mark.parametrize("difficulty", GOLDEN)
def test_pictures_are_the_same_bytes_as_ever(difficulty: str) -> None:
    assert digest(difficulty) == GOLDEN[difficulty]


def test_plain_instructions_give_the_same_bytes() -> None:
    code = (
        "import cv2; from tests.recognition.test_synth import digest, GOLDEN; print(cv2.getCPUFeaturesLine()); "
        "print(*map(digest, GOLDEN))"
    )
    plain = {
        "OPENCV_CPU_DISABLE": "SSE4.1,SSE4.2,AVX,AVX2,AVX512-SKX,FP16,NEON_DOTPROD,NEON_FP16",
        "OPENCV_IPP": "disabled",
        "JSIMD_FORCENONE": "1",
        "NPY_DISABLE_CPU_FEATURES": "SSE41 SSE42 AVX F16C FMA3 AVX2 AVX512F AVX512CD AVX512_SKX",
    }
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **plain}, check=True, capture_output=True, text=True
    )
    features, digests = run.stdout.strip().splitlines()
    assert " AVX2" not in features.replace("*AVX2?", "")
    assert digests.split() == list(GOLDEN.values())


def test_order_count_and_neighbours_do_not_matter() -> None:
    forward = [image.tobytes() for image, _ in render(spec(), 10, 20)]
    other = Renderer(SynthSpec(seed=7, count=5, fonts="train", words="train", difficulty="mixed"))
    backward = [other.sample(index)[0].tobytes() for index in range(19, 9, -1)]
    assert forward == backward[::-1]


def test_seed_index_parts_and_difficulty_change_the_picture() -> None:
    specs = [spec(), spec(seed=8), spec("easy"), spec("hard"), spec(fonts="test"), spec(words="test")]
    pictures = {Renderer(s).sample(index)[0].tobytes() for s in specs for index in (0, 1)}
    assert len(pictures) == 2 * len(specs)


def test_parts_share_no_family_and_together_hold_all() -> None:
    train, test = ({face.family for family in Faces(part).families for face in family} for part in ("train", "test"))
    assert not train & test
    assert train | test == {face.family for face in read_atlas()}
    assert 0.10 < len(test) / len(train | test) < 0.20


def test_atlas_is_rich_and_every_face_has_all_letters_and_digits() -> None:
    faces = read_atlas()
    assert len(faces) >= 400
    assert len({face.family for face in faces}) >= 250
    needed = set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    for face in faces[::10]:
        assert needed <= set(face.glyphs())
        assert all(glyph.alpha.max() > 100 for glyph in face.glyphs().values())


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
    assert 0.07 < sum(text != label for text, label in drawn) / 4000 < 0.13
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


@pytest.mark.parametrize(("difficulty", "least"), [("easy", 10.0), ("mixed", 5.0), ("hard", 3.0)])
def test_pictures_hold_visible_ink(difficulty: str, least: float) -> None:
    deviations = []
    for image, label in render(spec(difficulty, "test", "test"), 0, 170):
        assert image.shape == (32, 100)
        assert image.dtype == np.uint8
        assert label.isalnum()
        deviations.append(float(image.std()))
    assert np.quantile(deviations, 0.02) > least
    assert np.median(deviations) > 20


def test_line_without_warp_fills_the_crop_evenly() -> None:
    # A ramp of 1 gray level per pixel over an ink box of 200 x 64: with margins of 0.01 * 64 pixels the crop's
    # column c averages samples 2c and 2c + 1, that is the ramp at -0.64 + (2c + 1) * 201.28 / 200 - 0.5.
    canvas = np.broadcast_to(np.arange(200 + 2 * PAD, dtype=np.uint8), (64 + 2 * PAD, 200 + 2 * PAD)).copy()
    crop = sample(canvas, place(200, 64, STILL, Dice("still")))
    expected = PAD - 0.64 + (2 * np.arange(100) + 1) * 201.28 / 200 - 0.5
    assert crop.shape == (32, 100)
    assert np.abs(crop - expected).max() <= 1.1  # coordinates to 1/32, gray levels rounded twice
    assert np.ptp(crop, axis=0).max() == 0


def test_a_half_turn_tangent_of_one_stands_text_upright() -> None:
    # tan(45 degrees) = 1, so the rotation is about 90 degrees for a bell value near 1; with that a ramp along the
    # text becomes a ramp down the crop. Search the draws for such a value.
    turned = replace(STILL, turn=0.5, wild_turn=0.5)
    canvas = np.broadcast_to(np.arange(100 + 2 * PAD, dtype=np.uint8) + 50, (100 + 2 * PAD, 100 + 2 * PAD)).copy()
    found = []
    for key in range(200):
        dice = Dice(key)
        draws = [dice.unit() for _ in range(7)]
        half = (sum(draws[3:]) - 2.0) * 3.0**0.5 * 0.5
        if abs(half - 1.0) < 0.02:
            found.append(sample(canvas, place(100, 100, turned, Dice(key))).astype(int))
    assert found
    for crop in found:
        assert crop[28, 50] - crop[3, 50] > 60
        assert abs(crop[16, 90] - crop[16, 10]) < 12


def test_blend_by_hand() -> None:
    picture = np.full((1, 3), 100, np.int32)
    mask = np.array([[0, 128, 255]], np.uint8)
    # 100 + (200 - 100) * 128 / 255 = 150.2; half the opacity at full alpha: 150
    assert blend(picture, mask, 200, 256).tolist() == [[100, 150, 200]]
    assert blend(picture, mask, 200, 128)[0, 2] == 150


def test_backdrops_keep_their_mean_and_noise_its_strength() -> None:
    backdrops = Backdrops()
    flat = backdrops.plane(90, 0, Dice(1))
    assert flat.min() == flat.max() == 90
    means = [float(backdrops.plane(128, 256, Dice("mean", i)).mean()) for i in range(300)]
    assert abs(np.mean(means) - 128) < 6
    noise = np.concatenate([backdrops.noise(160, Dice("noise", i)) for i in range(20)])
    assert abs(float(noise.std()) - 10) < 0.5
    assert abs(float(noise.mean())) < 1


def test_dice_are_what_they_say() -> None:
    dice = Dice("statistics")
    bells = [dice.bell(2.0) for _ in range(20000)]
    assert abs(np.mean(bells)) < 0.06
    assert abs(np.std(bells) - 2.0) < 0.06
    assert {dice.integer(3, 5) for _ in range(100)} == {3, 4, 5}
    assert {dice.below(3) for _ in range(100)} == {0, 1, 2}


def test_address_is_read() -> None:
    address = "synth://words?seed=1&count=200000&fonts=train&words=test&difficulty=mixed"
    assert SynthSpec.parse(address) == SynthSpec(seed=1, count=200000, fonts="train", words="test", difficulty="mixed")


GOOD = {"seed": "1", "count": "9", "fonts": "train", "words": "train", "difficulty": "easy"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "x"}, "seed is 'x', expected a whole number"),
        ({"seed": "-1"}, "seed is '-1'"),
        ({"count": "0"}, "count >= 1"),
        ({"fonts": "all"}, "fonts is 'all', expected one of train, test"),
        ({"words": ""}, "words is ''"),
        ({"difficulty": "medium"}, "expected one of easy, hard, mixed"),
        ({"color": "1"}, "unknown key color"),
        ({"seed": None}, "missing key seed"),
    ],
)
def test_wrong_addresses_are_refused(change: dict[str, str | None], message: str) -> None:
    query = "&".join(f"{key}={value}" for key, value in {**GOOD, **change}.items() if value is not None)
    with pytest.raises(ValueError, match=message):
        SynthSpec.parse(f"synth://words?{query}")


@pytest.mark.parametrize("address", ["synth://lines?seed=1", "https://words?seed=1", "synth://words/a?seed=1"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not an address of rendered words"):
        SynthSpec.parse(address)


def test_a_key_that_stands_twice_is_refused() -> None:
    query = "&".join(f"{key}={value}" for key, value in GOOD.items())
    with pytest.raises(ValueError, match="twice"):
        SynthSpec.parse(f"synth://words?{query}&seed=2")


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (5, 4), (0, 1001)])
def test_ranges_outside_the_count_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="does not lie in 0..1000"):
        next(render(spec(), start, stop))


def test_digest_covers_every_file() -> None:
    folder = ROOT / "components/recognition/synth_data"
    joined = b"".join(
        hashlib.sha256((folder / name).read_bytes()).digest()
        for name in ("atlas.bin", "words_common.txt.xz", "words_large.txt.xz")
    )
    assert atlas_digest() == hashlib.sha256(joined).hexdigest()


def test_licences_name_every_package_and_face() -> None:
    text = (ROOT / "components/recognition/synth_data/LICENCES").read_text(encoding="utf-8")
    for face in read_atlas():
        assert f"fonts-{face.package} " in text
        assert face.name in text
    assert all(title in text for title in ("SIL OPEN FONT LICENSE", "Apache License", "Kevin Atkinson"))


def test_contact_sheet_has_two_rows_of_pictures_at_twice_their_size() -> None:
    images = [np.full((32, 100), gray, np.uint8) for gray in (10, 90, 170)]
    png = contact_sheet(images, ["a", "b", "c"], columns=2)
    sheet = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (2 * (64 + 16), 2 * (200 + 6))
    centres = [sheet[32 + 80 * row, 100 + 206 * column] for row, column in itertools.product((0, 1), (0, 1))]
    assert centres == [10, 90, 170, 255]


def test_contact_sheet_needs_a_label_for_each_picture() -> None:
    with pytest.raises(ValueError, match="1 pictures and 0 labels"):
        contact_sheet([np.zeros((32, 100), np.uint8)], [])
