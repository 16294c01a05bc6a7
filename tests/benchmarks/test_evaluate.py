from pathlib import Path

import pytest
import torch
from rapidfuzz.distance import Levenshtein

from benchmarks import evaluate
from wordmill.recipe.loading import load_recipe
from wordmill.text.charset import load_charset
from wordmill.text.decoding import CtcCodec

CODEC = CtcCodec(charset=load_charset("lower36"))


def test_the_loop_decodes_as_this_project_does() -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 25, 37)
    logits[:, :, 0] += 1.5
    texts = evaluate.outcome(logits, ["word"] * 8, CODEC)
    assert texts == CODEC.decode(logits.numpy())[0]
    assert len(set(texts)) == 8


@pytest.mark.parametrize(("left", "right"), [("", ""), ("", "ab"), ("kitten", "sitting"), ("abc", "abc"), ("ab", "ba")])
def test_the_loops_edit_distance_is_levenshteins(left: str, right: str) -> None:
    assert evaluate.distance(left, right) == Levenshtein.distance(left, right)


def test_both_see_every_picture(tmp_path: Path) -> None:
    files = evaluate.words(5)
    assert all(content.startswith(b"\x89PNG") and label == label.lower() for content, label in files)
    seen: list[torch.Tensor] = []

    def net(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return torch.zeros(len(images), 25, 37)

    assert evaluate.loop(net, files, CODEC) == [""] * 5
    assert seen[0].shape == (5, 3, 32, 100)
    assert -1 <= float(seen[0].min()) < float(seen[0].max()) <= 1
    evaluate.pack(tmp_path / "0.lmdb", files, load_recipe(evaluate.RECIPE))
    facts = evaluate.evaluate(evaluate.Silent(CODEC, 25), tmp_path / "0.lmdb")
    assert (facts["total"], facts["correct"]) == (5, 0)


def test_ratios_are_the_loops_time_by_ours() -> None:
    times = {"shard": 1.0, "evaluate": 2.0, "evaluate with amp O2": 1.5, "loop": 6.0,
             "evaluate without network": 0.5, "loop without network": 0.75}  # fmt: skip
    rows = evaluate.table(12067, times)
    assert [(row["value"], row["ratio"], row["goal"], row["met"]) for row in rows] == [
        (6.0, None, None, None), (2.0, 3.0, 1.3, True), (3.0, 2.0, None, None),
        (1.5, 4.0, 1.3, True), (2.5, 2.4, None, None),
        (0.75, None, None, None), (0.5, 1.5, None, None), (1.5, 0.5, None, None),
    ]  # fmt: skip
    assert all(set(row) == {"name", "value", "unit", "peer", "ratio", "goal", "met"} for row in rows)
