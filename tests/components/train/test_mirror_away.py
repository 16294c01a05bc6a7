"""What training says while its checkpoints do not get into the store."""

from pathlib import Path

import pytest

from components.train import mirror
from components.train.mirror import Mirror, StoreAwayError
from tests.pipelines.cluster.clock import Clock
from wordmill.store.storage import Store


def test_while_the_store_is_away_it_is_said_since_when_and_what_it_has_last(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Mirror(store, tmp_path, "away")
    found.drop()
    clock = Clock()
    monkeypatch.setattr(mirror, "time", clock)
    found.kept = {"step-00000404.json": {}, "step-00000574.json": {}}
    found.check()
    found.away_since, found.trouble = 0.0, "no answer"
    for clock.now in (1.0, 60.5, 61.5, 119.0, 121.0):
        found.check()
    lines = [
        f"warning: the store has been away for {time}, its last checkpoint is step-00000574"
        for time in ("1:00", "2:01")
    ]
    assert capsys.readouterr().out.splitlines() == lines
    clock.now = 601.0
    with pytest.raises(StoreAwayError, match="the store has been away for 10 minutes: no answer"):
        found.check()
