import pytest

from wordmill.store import runs, tracking
from wordmill.store.runs import begin_run, records_prefix, starts_key
from wordmill.store.storage import Store


def record(store: Store, run_tag: str, *names: str) -> None:
    for name in names:
        store.put_json(f"{records_prefix(run_tag)}{name}.json", {"ok": False})


def test_a_run_that_is_continued_forgets_what_the_one_before_recorded_and_its_starts(store: Store) -> None:
    assert begin_run(store, "night-1") is False
    record(store, "night-1", "fresh.tiny", "fetch.datasets", "train.crnn", "report.tiny")
    record(store, "night-10", "train.crnn")
    store.put_json(starts_key("night-1"), {"step": 3, "starts": 4})
    assert begin_run(store, "night-1", keep="fresh.") is True
    assert list(store.keys(records_prefix("night-1"))) == ["runs/night-1/stages/fresh.tiny.json"]
    assert store.get_json(starts_key("night-1")) is None
    assert list(store.keys(records_prefix("night-10"))) == ["runs/night-10/stages/train.crnn.json"]
    assert begin_run(store, "night-1", keep="fresh.") is False  # the same stage again, after a lost pod
    assert begin_run(store, "night-1") is True


def test_mlflow_shows_a_continued_run_as_running_and_an_mlflow_that_is_away_ends_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reopened = []

    class Run:
        def reopen(self) -> None:
            reopened.append(True)
            if len(reopened) == 2:
                raise RuntimeError("no answer")

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr(tracking, "open_run", lambda store, run_tag: Run())
    for known, calls in ((False, 0), (True, 1), (True, 2)):
        if known:
            store.put_json("runs/night-2/mlflow.json", {"run_id": "r"})
        record(store, "night-2", "fetch.datasets")
        assert runs.begin_run(store, "night-2")
        assert len(reopened) == calls
    assert "warning: MLflow shows the run as ended until its report: no answer" in capsys.readouterr().out
