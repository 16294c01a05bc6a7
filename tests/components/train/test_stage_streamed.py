"""Training pictures that are drawn while training, from the recipe to the trained model."""

from pathlib import Path

import pytest

from components.train import stage as train_stage
from tests.components.shard.shard_sets import drawn, one, photos, png, section, shard
from tests.wordmill.training.tiny import MODEL, TRAIN
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.parsing import to_json
from wordmill.store.artifacts import read_manifest
from wordmill.store.storage import Store

QUICKSTART = Path(__file__).parents[3] / "pipelines" / "recipes" / "quickstart.yaml"
SETS = {"words": drawn(48), "val": drawn(20, seed=8)}
STREAMED = section(train=["words"], val=["val"], streamed=True)


def test_a_streamed_set_is_not_packed(store: Store, tmp_path: Path) -> None:
    combined = shard(tmp_path, SETS, STREAMED)
    words = one(store, combined)
    assert words.objects == ()
    assert words.facts == {"address": SETS["words"]["source"], "samples": 48, "content": ""}
    assert one(store, combined, "val").facts["samples"] == 20
    assert "index.npz" in [entry.name for entry in one(store, combined, "val").objects]


def test_a_limit_shortens_the_epoch(store: Store, tmp_path: Path) -> None:
    combined = shard(tmp_path, SETS, section(train=["words"], val=["val"], streamed=True, limit=30))
    assert one(store, combined).facts["samples"] == 30


def test_one_set_can_be_streamed_and_no_more() -> None:
    with pytest.raises(ValueError, match=r"data\.streamed: found 2 sets in data\.train, expected one"):
        load_recipe(QUICKSTART, ("data.streamed=true", "data.train=[a, b]"))


def test_only_rendered_sets_can_be_streamed(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shard(tmp_path, {"words": photos(tmp_path / "w.zip", {"a": png(1)})}, section(train=["words"], streamed=True))
    assert "data.streamed: data set 'words'" in capsys.readouterr().out


def test_training_draws_its_pictures_itself(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shard(tmp_path, SETS, STREAMED)
    train_stage.run(
        recipe="tiny", data=STREAMED, model=to_json(MODEL), train=to_json(TRAIN), device="cpu", processes=2,
        shards=str(tmp_path / "out" / "manifest"), gang="", run_tag="tag", output=str(tmp_path / "trained.json"),
    )  # fmt: skip
    trained = read_manifest(tmp_path / "trained.json")
    assert (trained.facts["steps"], trained.facts["images"]) == (3, 48)
    assert "train  48/48 images  100.0 %" in capsys.readouterr().out
