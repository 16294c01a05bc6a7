"""A run on this machine that was killed at any of its points, its stages aside, and is started again by its tag."""

import json
from pathlib import Path

import pytest
from kfp.dsl import executor_main  # noqa: F401 (else every copy imports it)

from pipelines.local import services, stages
from pipelines.local.run import run_locally
from tests.crash_places import Place, in_a_copy, table, told
from tests.crashed_run import call, tiny
from tests.crashes import Found, try_all
from tests.mlflow_server import start
from wordmill.store import tracking
from wordmill.store.files import TEMPORARY
from wordmill.store.storage import Store

EVEN = 60


@pytest.mark.slow
def test_a_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "tries", monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", start(store.endpoint))
    monkeypatch.setattr(stages, "start_warm", lambda: None)
    monkeypatch.setattr(stages, "call", call)

    def prepare(number: int) -> Path:
        folder = place.prepare(number)
        monkeypatch.setattr(services, "STATE", folder / "state")
        return folder

    def work() -> None:
        if code := run_locally(tiny, "tiny", run_tag=f"r-{place.folder.name}"):
            raise SystemExit(code)

    def look() -> Found:
        tag = f"r-{place.folder.name}"
        folder = services.STATE / "runs" / tag
        summary = json.loads((folder / "summary.json").read_text())
        open_run = tracking.connect().get_run(tracking.open_run(place.store, tag).run_id)
        result = (summary["ok"], summary["errors"], (folder / "report.html").read_text(), open_run.info.status)
        # Temporary files go an hour later.
        left = sorted(path.name for path in folder.iterdir() if not TEMPORARY.fullmatch(path.name))
        return Found(result, [], (left, [key.replace(tag, "r") for key in place.documents()], place.files()))

    table("run", try_all(prepare, in_a_copy(work), lambda: told(look, place.folder), EVEN))
