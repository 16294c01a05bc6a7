import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from components.shard import stage
from tests.components.shard.shard_sets import drawn, fetched, labels, one, photos, png, section, shard
from wordmill.pictures.image import fit_picture
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data
from wordmill.shards.sets import open_dataset
from wordmill.store import files as disk
from wordmill.store.artifacts import Manifest, digest, read_manifest
from wordmill.store.storage import Store
from wordmill.synth.renderer import Renderer, SynthSpec


def test_photographs_become_shards(store: Store, tmp_path: Path) -> None:
    sources = {"words": photos(tmp_path / "w.zip", {"Word": png(10), "it's": png(200)})}
    combined = shard(tmp_path, sources, section(height=8, width=16, channels=3))
    shards = open_dataset(store, combined, "words")
    assert (shards.samples, shards.shape) == (2, (8, 16, 3))
    assert labels(shards) == ["Word", "it's"]
    assert [np.unique(image).tolist() for image in shards.block(0).images] == [[10], [200]]
    facts = one(store, combined).facts
    assert facts["samples"] == facts["read"] == 2
    assert facts["shards"] == [{"object": "00000.lmdb", "samples": 2, "blocks": 1}]
    assert (facts["dropped"], facts["changed"]) == ({}, {"case folded": 1, "characters deleted": 1})
    sheet = store.fetch(one(store, combined).object("contact_sheet.png")).read_bytes()
    assert cv2.imdecode(np.frombuffer(sheet, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) is not None


SAMPLES: dict[str, bytes | None] = {"Word": png(1), "it's": png(2), "!?": png(3), "übel": png(4)}


@pytest.mark.parametrize(
    ("policy", "kept", "dropped"),
    [
        ("mindocr", ["", "bel", "its", "word"], {}),
        ("dtrb", ["word"], {"character outside the charset": 3}),
        ("parseq", ["its", "ubel", "word"], {"no character left": 1}),
    ],
)
def test_training_sets_follow_the_recipes_label_policy(
    policy: str, kept: list[str], dropped: dict[str, int], store: Store, tmp_path: Path
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES)}
    combined = shard(tmp_path, sources, section(train=["words"], label_policy=policy))
    assert sorted(labels(open_dataset(store, combined, "words"))) == kept
    assert one(store, combined).facts["dropped"] == dropped


@pytest.mark.parametrize(
    ("policy", "outside", "told"),
    [
        ("mindocr", {"": 3, "'": 1, "!": 1, "?": 1, "ü": 1}, "shard words: 3 labels have characters that charset "),
        (
            "parseq",
            {"": 2, "'": 1, "!": 1, "?": 1},
            "to add them: the verb charset, `make charset DATA=words`",
        ),  # ü is written as u
    ],
)
def test_characters_outside_the_charset_are_counted_and_named(
    policy: str, outside: dict[str, int], told: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES)}
    combined = shard(tmp_path, sources, section(train=["words"], label_policy=policy))
    assert one(store, combined).facts["outside"] == outside
    assert told in capsys.readouterr().out


def test_the_longest_label_is_the_recipes(store: Store, tmp_path: Path) -> None:
    sources = {"words": photos(tmp_path / "w.zip", {"abcd": png(1), "abc": png(2)})}
    combined = shard(tmp_path, sources, section(train=["words"], label_policy="dtrb", max_label=3))
    assert labels(open_dataset(store, combined, "words")) == ["abc"]
    assert one(store, combined).facts["dropped"] == {"longer than 3 characters": 1}


@pytest.mark.parametrize("val", [["words"], []])
def test_validation_sets_and_benchmarks_keep_every_sample(val: list[str], store: Store, tmp_path: Path) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES)}
    combined = shard(tmp_path, sources, section(val=val, label_policy="dtrb", max_label=1, limit=2))
    assert labels(open_dataset(store, combined, "words")) == list(SAMPLES)


def test_the_limit_is_for_training_sets(store: Store, tmp_path: Path) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES), "more": photos(tmp_path / "m.zip", SAMPLES)}
    combined = shard(tmp_path, sources, section(train=["words"], val=["more"], limit=2))
    assert sorted(labels(open_dataset(store, combined, "words"))) == ["its", "word"]
    assert one(store, combined).facts["read"] == 2
    assert open_dataset(store, combined, "more").samples == 4


def test_bad_samples_are_put_aside_with_place_and_reason(store: Store, tmp_path: Path) -> None:
    samples = {"good": png(1), "bad": b"no picture", "lost": None, "x" * 4097: png(2), "fine": png(3), "well": png(4)}
    combined = shard(tmp_path, {"words": photos(tmp_path / "w.zip", samples)}, section())
    assert labels(open_dataset(store, combined, "words")) == ["good", "fine", "well"]
    manifest = one(store, combined)
    assert (manifest.facts["read"], manifest.facts["samples"], manifest.facts["quarantined"]) == (6, 3, 3)
    expected = [
        "not a whole picture: 10 bytes",
        "picture file missing",
        "label too long: 4097 bytes, expected at most 4096",
    ]
    for item, number, reason in zip(manifest.facts["quarantine"], (2, 3, 4), expected, strict=True):
        assert item["where"] == f"labels.txt, line {number}: {number - 1}.png"
        assert item["reason"].startswith(reason)
    reasons = {"not a whole picture": 1, "picture file missing": 1, "label too long": 1}
    assert manifest.facts["reasons"] == reasons
    listed = json.loads(store.fetch(manifest.object("quarantine.json")).read_text())
    assert listed == manifest.facts["quarantine"]


def test_quarantined_pictures_are_shown_where_there_are_any(store: Store, tmp_path: Path) -> None:
    samples = {"good": png(1), "bad": b"no picture", "x" * 4097: png(130), "fine": png(3), "well": png(4)}
    combined = shard(tmp_path, {"words": photos(tmp_path / "w.zip", samples)}, section())
    data = store.fetch(one(store, combined).object("quarantine.png")).read_bytes()
    sheet = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (sheet[:64, :200] == 224).all()  # an empty tile: there is no picture
    assert (sheet[:64, 206:406] == 130).all()
    assert (sheet[66:, :406] < 100).any()  # the reasons are written below


def test_a_set_without_bad_samples_has_no_quarantine(store: Store, tmp_path: Path) -> None:
    combined = shard(tmp_path, {"words": photos(tmp_path / "w.zip", SAMPLES)}, section())
    names = [entry.name for entry in one(store, combined).objects]
    assert names == ["00000.lmdb", "index.npz", "contact_sheet.png", "fingerprints.npy"]


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], sources: dict[str, Any], data: str) -> str:
    with pytest.raises(SystemExit):
        shard(tmp_path, sources, data)
    return capsys.readouterr().out


def test_a_data_set_that_is_mostly_unusable_is_an_error(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", {"good": png(1), "bad": b"x", "lost": None})}
    assert "): 2 of 3 samples are unusable" in refusal(tmp_path, capsys, sources, section())


def test_the_sample_count_is_verified(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES) | {"samples": 5}}
    assert "w.zip): expected 5 samples, found 4" in refusal(tmp_path, capsys, sources, section())


def test_a_training_set_of_which_nothing_is_left_is_an_error(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", {"!": png(1), "?": png(2)})}
    out = refusal(tmp_path, capsys, sources, section(train=["words"], label_policy="paddleocr"))
    assert "none of 2 samples is left: dropped {'no character left': 2}" in out


def test_validating_on_training_data_is_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = refusal(tmp_path, capsys, {"words": drawn(2)}, section(train=["words"], val=["words"]))
    assert "data set 'words' is in data.train and in data.val" in out


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"channels": 1}, "6,400"),
        ({"channels": 3}, "19,200"),
        ({"channels": 1, "stored": "encoded"}, "6,400"),  # what is rendered has no files: at most the pixels' bytes
    ],
)
def test_the_size_is_said_first_and_refused_where_the_disk_is_too_small(
    fields: dict[str, Any],
    needed: str,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage)
    out = refusal(tmp_path, capsys, {"words": drawn(2)}, section(**fields))
    assert f"shard words: 2 samples, {needed} bytes in shards" in out
    assert f"shards of 2 samples: {needed} bytes do not fit on" in out


def test_encoded_shards_take_about_the_bytes_of_the_files(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES)}
    shard(tmp_path, sources, section(train=["words"], stored="encoded", limit=2))
    files = sum(len(data or b"") for data in SAMPLES.values()) + len(
        "0.png Word\n1.png it's\n2.png !?\n3.png \u00fcbel\n".encode()
    )
    assert f"shard words: 2 samples, {files // 2:,} bytes in shards" in capsys.readouterr().out


def test_only_what_shard_reads_is_in_the_key(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = read_manifest(fetched(tmp_path, {"words": drawn(3), "more": drawn(3, seed=8)}))
    keys: dict[str, str] = {}

    def note(
        store: Store, stage: str, name: str, inputs: dict[str, Any], make: object, ingredients: object
    ) -> tuple[Manifest, bool]:
        keys[name] = digest(inputs)
        return source, True

    monkeypatch.setattr(stage, "find_or_make", note)

    def found(**fields: Any) -> dict[str, str]:
        for name in ("words", "more"):
            stage._shard(store, from_json(Data, section(**fields)), source, name)
        return dict(keys)

    first = found(train=["words"])
    assert found(train=["words"], val=["more"]) == first
    assert found(train=["words"], middle=127.0) == first
    for of_training_sets in ({"limit": 2}, {"label_policy": "dtrb"}, {"max_label": 3}):
        changed = found(train=["words"], **of_training_sets)
        assert changed["words"] != first["words"]
        assert changed["more"] == first["more"]
    for key, value in {
        "width": 99, "height": 31, "channels": 3, "fit": "pad_grey", "interpolation": "bicubic", "turn_tall": True,
        "charset": "english94", "space": True, "stored": "encoded",
    }.items():  # fmt: skip
        changed = found(train=["words"], **{key: value})
        assert all(changed[name] != first[name] for name in changed), key
    assert found(val=["words"])["words"] != first["words"]  # a training set goes without some labels


def test_pictures_are_fitted_as_the_recipe_says(store: Store, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 18, 3), dtype=np.uint8)
    source = {"words": photos(tmp_path / "w.zip", {"a": bytes(cv2.imencode(".png", noise[:, :, ::-1])[1].tobytes())})}
    how = section(height=8, width=32, channels=3, fit="pad_black", interpolation="bicubic", turn_tall=True)
    image = open_dataset(store, shard(tmp_path, source, how), "words").block(0).images[0]
    np.testing.assert_array_equal(image, fit_picture(noise, from_json(Data, how)))
    assert image[:, :18].any(axis=(0, 2)).all()  # turned, 18 of 32 columns: 8 * 40 / 18 = 17.8
    assert not image[:, 18:].any()


def test_finished_sets_are_found(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = shard(tmp_path, {"words": drawn(3)}, section())
    capsys.readouterr()
    assert shard(tmp_path, {"words": drawn(3)}, section()) == first
    out = capsys.readouterr().out
    assert "shard words: found finished" in out
    assert "shard datasets: found in" in out
    assert not any((store.cache / "work").iterdir())


def test_a_rendered_set_has_the_pictures_of_its_specification(store: Store, tmp_path: Path) -> None:
    combined = shard(tmp_path, {"words": drawn(3)}, section())
    block = open_dataset(store, combined, "words").block(0)
    renderer = Renderer(SynthSpec.parse(drawn(3)["source"]))
    expected = [renderer.sample(index) for index in range(3)]
    assert block.labels == [label for _, label in expected]
    assert block.images is not None
    np.testing.assert_array_equal(block.images[:, :, :, 0], np.stack([image for image, _ in expected]))
