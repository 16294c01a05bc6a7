import dataclasses
import zipfile
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.local.own.composing import composed, composed_words, find_crops
from pipelines.local.own.first_reading import Word
from tests.components.train.trained import MODEL, lively
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.inference.reading import of_checkpoint
from wordmill.models import checkpoint
from wordmill.models.pretrained import WEIGHTS
from wordmill.pictures.composition import Crop
from wordmill.pictures.image import encode, fit_picture
from wordmill.readers.opening import open_reader
from wordmill.sources.archives import lay_out
from wordmill.store.storage import hash_file
from wordmill.synth.renderer import SynthSpec, render
from wordmill.synth.text import is_test_text

SPEC = SynthSpec(seed=5, count=128, fonts="test", words="test", difficulty="easy")


@cache
def words() -> list[Word]:
    return list(render(SPEC, 0, SPEC.count))


@cache
def shipped() -> TextRecogniser:
    return of_checkpoint(checkpoint.load(WEIGHTS), WEIGHTS)


def accuracy(pictures: list[np.ndarray], texts: list[str]) -> float:
    found, _ = shipped().read(np.stack([fit_picture(picture, shipped().data) for picture in pictures]))
    return float(np.mean([one == text.lower() for one, text in zip(found, texts, strict=True)]))


def test_words_that_are_composed_read_as_they_say() -> None:
    crops = find_crops(words(), shipped())
    made = composed(crops)
    pictures, texts = zip(*(next(made) for _ in range(256)), strict=True)
    assert len(set(texts)) > 200
    own = accuracy([crop.picture for crop in crops], [crop.text for crop in crops])
    assert own > 0.7  # by a recogniser that has seen none of these faces
    assert accuracy(list(pictures), list(texts)) > 0.6 * own  # a cut at any other place spoils two letters of a word
    longest = max(len(label) for _, label in words())
    assert max(map(len, texts)) <= longest


def made_of(*texts: str) -> list[str]:
    """Return 200 texts that are composed of words whose letters are as wide as each other."""
    crops = [Crop(picture=np.full((32, 8 * len(text), 1), 9, np.uint8), text=text,
                  cuts=tuple((n + 1) / len(text) for n in range(len(text) - 1))) for text in texts]  # fmt: skip
    return [text for _, text in islice(composed(crops), 200)]


def test_most_texts_are_the_renderers_for_training_as_far_as_letters_go() -> None:
    found = made_of("abcdefghijklmnop", "qrstuvwxyz")
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz") for text in found)
    spelled = [text for text in found if text not in {a + b for a in starts("abcdefghijklmnop", "qrstuvwxyz")
                                                      for b in ends("abcdefghijklmnop", "qrstuvwxyz")}]  # fmt: skip
    assert len(spelled) == pytest.approx(150, abs=25)  # three quarters
    assert not any(is_test_text(text) for text in spelled)


def starts(*texts: str) -> list[str]:
    return [text[:end] for text in texts for end in range(1, len(text))]


def ends(*texts: str) -> list[str]:
    return [text[begin:] for text in texts for begin in range(1, len(text))]


def test_accents_are_put_on_letters_that_own_words_have_with_them() -> None:
    found = made_of("abcdefghijklmnop", "qrstuvwxyz", "éàç")
    assert {c for text in found for c in text} > set("éàç")
    with_e = [text for text in found if "é" in text and "à" not in text and "ç" not in text]
    assert with_e
    assert not any("e" in text and "é" in text for text in with_e if len(text) < 8)  # all of a letter or none


def test_words_of_another_alphabet_are_put_together_of_fronts_and_backs_no_longer_than_one() -> None:
    every = {a + b for a in starts("一二三", "四五六") for b in ends("一二三", "四五六")}
    assert set(made_of("一二三", "四五六")) == {text for text in every if len(text) <= 3}


def test_words_whose_letters_are_not_found_are_left_out_and_the_least_sure_ones() -> None:
    damaged = (b"no picture", "ab")
    others = [damaged, (words()[0][0], ""), (words()[0][0], "x"), (words()[0][0], "a" * 60)]
    crops = find_crops([*others, *words()], shipped())
    several = sum(len(shipped().codec.charset.clean(label)) > 1 for _, label in words())
    assert len(crops) == pytest.approx(0.9 * several, abs=1)
    for crop in crops:
        assert len(crop.cuts) == len(crop.text) - 1 > 0
        assert list(crop.cuts) == sorted(crop.cuts)
        assert crop.cuts[0] > 0
        assert crop.cuts[-1] < 1


def test_a_picture_that_fills_a_part_of_the_width_is_cut_out_of_it() -> None:
    saved = checkpoint.load(WEIGHTS)
    padded = of_checkpoint(dataclasses.replace(saved, data=dataclasses.replace(saved.data, fit="pad_black")), WEIGHTS)
    crops = find_crops([(cv2.resize(picture, (60, 32)), label) for picture, label in words()], padded)
    assert crops
    assert {crop.picture.shape for crop in crops} == {(32, 60, 1)}


def test_letters_are_found_by_where_an_attention_decoder_looks() -> None:
    rare = dataclasses.replace(MODEL, name="rare", max_length=12, decoder_hidden=16)
    crops = find_crops(words(), of_checkpoint(lively(3, rare), Path("rare")))
    assert len(crops) > 80
    for crop in crops:
        assert len(crop.cuts) == len(crop.text) - 1
        assert list(crop.cuts) == sorted(crop.cuts)


def test_composed_words_are_an_archive_with_a_sheet_the_same_every_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    entries = [composed_words("w", words(), shipped(), 100, folder / "w-composed.zip") for folder in folders]
    (name, entry), path = *entries[0].items(), folders[0] / "w-composed.zip"
    assert (name, entry.source, entry.sha256) == ("w_composed", path.as_uri(), hash_file(path))
    assert entries[1]["w_composed"].sha256 == entry.sha256
    assert sorted(file.name for file in folders[0].iterdir()) == ["w-composed.png", "w-composed.zip"]
    assert "w: 100 words are composed of the letters of " in capsys.readouterr().out
    lay_out({path.name: path}, tmp_path / "unpacked")
    reader = open_reader(entry, tmp_path / "unpacked")
    samples = list(reader.read(range(len(reader))))
    expected = composed(find_crops(words(), shipped()))
    assert len(samples) == 100
    for sample, (picture, text) in zip(samples, expected, strict=False):
        assert (sample.problem, sample.label, sample.image) == ("", text, encode(picture))


def test_too_few_letters_are_no_set_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert composed_words("w", words()[:9], shipped(), 100, tmp_path / "w-composed.zip") == {}
    told = "expected at least 16 to compose others of: learnt from these words alone"
    assert told in capsys.readouterr().out
    assert [*tmp_path.iterdir()] == []


def test_what_cannot_be_written_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fails)
    with pytest.raises(OSError, match="no room"):
        composed_words("w", words(), shipped(), 100, tmp_path / "w-composed.zip")
    assert [*tmp_path.iterdir()] == []
