from pathlib import Path

import pytest

from pipelines.local.opening import open_local_run
from wordmill.store import tracking
from wordmill.store.storage import Store


class Opened:
    """Stands for MLflow's run: tells what was opened and ended."""

    events: list[str]

    def __init__(self, run_tag: str) -> None:
        self.run_tag = run_tag
        self.events.append(f"open {run_tag}")

    def finish(self, succeeded: bool) -> None:
        self.events.append(f"end {self.run_tag} {succeeded}")


def test_runs_that_were_killed_have_failed_and_one_that_goes_on_has_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Opened, "events", [], raising=False)
    monkeypatch.setattr(tracking, "open_run", lambda store, run_tag, recipe="": Opened(run_tag))
    for run_tag in ("killed", "unseen", "own"):  # nothing of the second one came to MLflow
        (tmp_path / run_tag).mkdir()
        (tmp_path / run_tag / "open").touch()
        if run_tag != "unseen":
            store.put_json(f"runs/{run_tag}/mlflow.json", {"run_id": run_tag})
    open_local_run("own", "quickstart", tmp_path)
    assert Opened.events == ["open killed", "end killed False", "open own"]
    assert [path.parent.name for path in tmp_path.glob("*/open")] == ["own"]
    assert capsys.readouterr().out == "run killed was killed: marked as failed in MLflow\n"
