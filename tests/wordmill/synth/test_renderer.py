import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wordmill.synth import renderer
from wordmill.synth.renderer import Renderer, SynthSpec, render

ROOT = Path(__file__).parents[3]
DATA = ROOT / "wordmill" / "synth" / "data"
GOLDEN = {
    "words?fonts=train&difficulty=easy": "026c93b44b3a7bdc58d235624887ae679aed141c7e7dd0396c587c403ee22fda",
    "words?fonts=train&difficulty=hard": "5b880c20ac6bd5d9152bf6ceb76ca98a782113c2d3a128a2905b4c14d39271cb",
    "words?fonts=test&difficulty=mixed": "69b2b4160d90f32190a059ac024e05d09e2fa273be5352202d581b73076ea9d6",
    "words?fonts=train&difficulty=mixed&colour=1": "d7781240c2722b59c748bb12b2a01ddbd4e993a54f0f88d8ac5a558c13e45a5f",
    "chinese?difficulty=mixed": "da0dfc4a4c2a8ea80087c6280f0526370fe5beeb5d53e24f8b265566c161330e",
    "signs?difficulty=mixed": "b2a83de8192e6c5ee906ec6074e5e6096d2ae1451f569d9baa034260298932d0",
}


def spec(difficulty: str = "mixed", fonts: str = "train", words: str = "train", seed: int = 7) -> SynthSpec:
    return SynthSpec(seed=seed, count=1000, fonts=fonts, words=words, difficulty=difficulty)


def digest(address: str) -> str:
    """SHA-256 over the first pictures of a set and their labels."""
    content = hashlib.sha256()
    rendered = render(SynthSpec.parse(f"synth://{address}&seed=7&count=64&words=train"), 0, 64)
    for image, label in itertools.islice(rendered, 8 if address.startswith("signs") else 64):
        content.update(image.tobytes() + label.encode())
    return content.hexdigest()


@pytest.mark.parametrize("address", GOLDEN)
def test_pictures_are_the_same_bytes_as_ever(address: str) -> None:
    assert digest(address) == GOLDEN[address]


def test_plain_instructions_give_the_same_bytes() -> None:
    code = (
        "import cv2; from tests.wordmill.synth.test_renderer import digest, GOLDEN; print(cv2.getCPUFeaturesLine()); "
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


def test_every_key_of_an_address_changes_the_picture() -> None:
    specs = [spec(), spec(seed=8), spec("easy"), spec("hard"), spec(fonts="test"), spec(words="test")]
    pictures = {Renderer(s).sample(index)[0].tobytes() for s in specs for index in (0, 1)}
    assert len(pictures) == 2 * len(specs)


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


def test_addresses_are_read() -> None:
    address = "synth://words?seed=1&count=200000&fonts=train&words=test&difficulty=mixed"
    assert SynthSpec.parse(address) == SynthSpec(seed=1, count=200000, fonts="train", words="test", difficulty="mixed")
    assert SynthSpec.parse(f"{address}&colour=1").colour == "1"
    signs = SynthSpec.parse("synth://signs?seed=3&count=5&words=test&difficulty=hard")
    assert signs == SynthSpec(kind="signs", seed=3, count=5, words="test", difficulty="hard")


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
        ({"colour": "yes"}, "colour is 'yes', expected one of 0, 1"),
        ({"seed": None}, "missing key seed"),
    ],
)
def test_wrong_addresses_are_refused(change: dict[str, str | None], message: str) -> None:
    query = "&".join(f"{key}={value}" for key, value in {**GOOD, **change}.items() if value is not None)
    with pytest.raises(ValueError, match=message):
        SynthSpec.parse(f"synth://words?{query}")


@pytest.mark.parametrize("address", ["synth://lines?seed=1", "https://words?seed=1", "synth://words/a?seed=1"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not an address of rendered text"):
        SynthSpec.parse(address)


@pytest.mark.parametrize("key", ["fonts=train", "colour=1"])
def test_what_only_words_have_is_refused_elsewhere(key: str) -> None:
    with pytest.raises(ValueError, match=f"unknown key {key.split('=')[0]}"):
        SynthSpec.parse(f"synth://chinese?seed=1&count=9&words=train&difficulty=easy&{key}")


def test_a_key_that_stands_twice_is_refused() -> None:
    query = "&".join(f"{key}={value}" for key, value in GOOD.items())
    with pytest.raises(ValueError, match="twice"):
        SynthSpec.parse(f"synth://words?{query}&seed=2")


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (5, 4), (0, 1001)])
def test_ranges_outside_the_count_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="does not lie in 0..1000"):
        next(render(spec(), start, stop))


def test_every_file_is_among_those_that_pictures_depend_on() -> None:
    names = ["atlas.bin", "atlas_chinese.bin", "atlas_letters.bin", "atlas_signs.bin", "words_common.txt.xz"]
    names += ["words_large.txt.xz", "shapes.txt", "chinese.txt", "french.txt"]
    assert {path.name for path in DATA.iterdir()} == {*names, "README.md", "LICENCES", "LICENCES_scripts"}
    assert sorted(path.name for path in renderer.DATA) == sorted(names)
