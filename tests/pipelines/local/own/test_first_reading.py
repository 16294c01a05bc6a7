import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.building import recipe_path
from pipelines.local.own import first_reading
from pipelines.local.own.composing import find_crops
from pipelines.local.own.first_reading import grown, kept_share, learnt_words
from tests.components.train.trained import DATA, lively
from tests.pipelines.local.own.test_composing import shipped, words
from wordmill.models import checkpoint
from wordmill.models.pretrained import WEIGHTS
from wordmill.readers.holdout import part_numbers
from wordmill.readers.sample import Sample
from wordmill.recipe.loading import load_recipe


class Listed:
    """A reader of so many words, of which the first is broken."""

    notes = ()

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        return (Sample(f"line {n}", b"", str(n), "broken" if n == 0 else "") for n in indices)


@pytest.mark.parametrize(("count", "step"), [(100, 1), (101, 2), (300, 3)])  # 70, 71 and 210 to learn from
def test_words_are_those_that_are_learnt_from_of_many_some_all_over(
    count: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_reading, "FEW", 70)
    expected = [str(n) for n in part_numbers(count, "train")[::step] if n]
    assert [label for _, label in learnt_words(Listed(count))] == expected
    assert len(expected) <= 70


KNOWN = "0123456789abcdefghijklmnopqrstuvwxy"  # no z


def mixed(read: int, others: int) -> list[first_reading.Word]:
    """Return so many words that are read right, and so many others, all of known characters."""
    pictures = [picture for picture, _ in words()]
    found, _ = shipped().read(np.stack([shipped().fit(picture) for picture in pictures]))
    right = [word for word, text in zip(words(), found, strict=True) if text == word[1].lower() and "z" not in text]
    assert len(right) >= read
    return [*right[:read], *((picture, "x") for picture in pictures[:others])]


@pytest.mark.parametrize(
    ("read", "others", "kept"),
    [(10, 40, 0.15), (26, 14, 0.15), (60, 20, 0.25), (60, 0, 0.5), (29, 0, 0.35), (0, 0, 0.35)],
)
def test_the_more_own_words_are_read_before_the_more_of_the_weights_is_kept(
    read: int, others: int, kept: float, capsys: pytest.CaptureFixture[str]
) -> None:
    unread, new = [(b"no picture", "ab")] * 5, [(picture, f"{label}z") for picture, label in words()[:20]]
    found = kept_share([*unread, *new, *mixed(read, others)], shipped(), KNOWN, "mindocr", 0.35)
    assert found == pytest.approx(kept)
    assert capsys.readouterr().out.startswith(f"of {read + others} own words") == (read + others >= 30)


def test_a_recogniser_is_grown_to_characters_that_its_weights_do_not_know(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("é\n", encoding="utf-8")
    start = f"train.start_from={WEIGHTS}"
    recipe = load_recipe(recipe_path("small"), (f"data.charset=lower36+{tmp_path}/c.txt", start,
                                                "train.start_charset=union"))  # fmt: skip
    finder = grown(WEIGHTS, recipe)
    assert finder.codec.charset.symbols.endswith("zé")
    accented = [(picture, label.lower().replace("e", "é")) for picture, label in words()]
    crops, plain = find_crops(accented, finder), find_crops(words(), shipped())
    assert sum("é" in crop.text for crop in crops) > 30
    places = {crop.picture.tobytes(): crop.cuts for crop in plain}
    same = [np.abs(np.subtract(places[key], crop.cuts)).max() < 0.05 for crop in crops
            if (key := crop.picture.tobytes()) in places]  # fmt: skip
    assert np.mean(same) > 0.9  # a letter with an accent is found where the letter without is
    with pytest.raises(ValueError, match=r"train\.start_from .*: model\.hidden: found 16, expected the recipe's"):
        grown(saved_as(tmp_path / "tiny.safetensors"), recipe)


def saved_as(path: Path) -> Path:
    saved = lively(1)
    model = dataclasses.replace(checkpoint.load(WEIGHTS).model, hidden=16)
    checkpoint.save(path, dataclasses.replace(saved, model=model, data=DATA))
    return path
