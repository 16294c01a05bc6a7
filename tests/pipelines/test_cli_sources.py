from pathlib import Path

import pytest
import yaml

from components.fetch.lock import hold
from pipelines.cli import main
from wordmill.store.storage import Store


def test_compiling_takes_data_sets_from_other_places(tmp_path: Path) -> None:
    output = tmp_path / "out.yaml"
    places = ["--from", "data_lmdb_release.zip=s3://bucket/all.zip", "--from", "mj_train=/data/mj"]
    with pytest.raises(SystemExit) as ended:
        main(["compile", "crnn_npu", *places, "-o", str(output)])
    assert not ended.value.code
    document = next(yaml.load_all(output.read_text(encoding="utf-8"), yaml.CSafeLoader))
    sources = document["root"]["inputDefinitions"]["parameters"]["sources"]["defaultValue"]
    mj = sources["mj_train"]
    assert (mj["source"], mj["inside"], mj["label_format"]) == ("file:///data/mj", "", "space")
    assert mj["licence"].startswith("non-commercial")
    assert "s3://bucket/all.zip" in {entry["source"] for entry in sources.values()}
    assert not [entry["source"] for entry in sources.values() if entry["source"].startswith("manual:")]


def test_what_changed_can_be_accepted(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    source = "https://example.org/train-{00..03}"
    hold(store, source, "0" * 64, ["words"], "r1")
    with pytest.raises(SystemExit) as ended:
        main(["accept", source])
    assert ended.value.code == 0
    assert f"forgotten: {source} had sha256 {'0' * 64} on 2" in capsys.readouterr().out
    hold(store, source, "1" * 64, ["words"], "r2")
    with pytest.raises(SystemExit, match=r"error: https://example.org/other: no use of this source is recorded"):
        main(["accept", "https://example.org/other"])
