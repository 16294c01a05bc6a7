"""A whole run through wires that drop, delay, cut off and repeat: the same bytes as through good ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bad_wire import bad_wire, drawn
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from tests.pipelines.local.test_run_whole import LITTLE_DATA, ROOT, own_data
from wordmill.store.storage import Store

pytestmark = pytest.mark.slow

SEEDS = (1, 2)
EVERY = 12  # requests, one of which meets something
TIMEOUT_S = 3600


def run(folder: Path, catalogue: Path, store: Store, endpoint: str, tracker: str) -> tuple[int, str]:
    """Make the small run with a state and a bucket of its own; return its code and what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WORDMILL_", "MLFLOW_"))}
    bucket = f"{store.bucket}-{folder.name}"
    Store(bucket, folder).make_bucket()
    environment |= {"WORDMILL_STATE": str(folder / "state"), "WORDMILL_CACHE": str(folder / "cache")}
    environment |= {"WORDMILL_BUCKET": bucket, "AWS_ENDPOINT_URL": endpoint, "MLFLOW_TRACKING_URI": tracker}
    command = [sys.executable, "-m", "pipelines", "run", "quickstart", "--smoke", "--catalogue", str(catalogue),
               "--benchmarks", "my_words", *(part for change in LITTLE_DATA for part in ("--set", change))]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=TIMEOUT_S, check=False)  # fmt: skip
    return done.returncode, done.stdout


def summary(output: str) -> dict[str, Any]:
    return dict(json.loads(Path(output.splitlines()[-1]).read_text(encoding="utf-8")))


def outcome(found: dict[str, Any]) -> list[Any]:
    """Return what a run has made, without what it took."""
    equal = {entry["format"]: entry["texts_equal"] for entry in found["formats"]}
    return [found["ok"], found["errors"], found["digests"], found["benchmarks"], equal]


@pytest.mark.usefixtures("mlflow_uri")
def test_a_run_ends_with_the_same_bytes_or_one_error(store: Store, tmp_path: Path) -> None:
    tracker_uri = os.environ["MLFLOW_TRACKING_URI"]
    (tmp_path / "data").mkdir()
    catalogue = own_data(tmp_path / "data")
    code, output = run(tmp_path / "good", catalogue, store, store.endpoint, tracker_uri)
    assert code == 0, output[-4000:]
    expected = summary(output)
    for seed in SEEDS:
        with bad_wire(store.endpoint, drawn(seed, EVERY)) as s3, bad_wire(tracker_uri, drawn(seed, EVERY)) as tracker:
            code, output = run(tmp_path / f"bad-{seed}", catalogue, store, s3.url, tracker.url)
        assert "Traceback" not in output, output[-4000:]
        if code == 0:
            assert s3.met.total() - s3.met[""] > 9, s3.met
            assert tracker.met.total() - tracker.met[""] > 2, tracker.met
            assert outcome(summary(output)) == outcome(expected)
        else:
            assert len({line for line in output.splitlines() if line.startswith("error: ")}) == 1, output[-4000:]
