"""The verbs `schedule` and `schedules` from the command line."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.cli import main
from pipelines.cluster.verbs import watched
from tests.pipelines.cluster.kfp_state import KfpServer


def verb(*arguments: str) -> object:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


def test_a_wrong_cron_is_refused_before_anything_is_asked(kfp: KfpServer) -> None:
    assert "has five fields" in str(verb("schedule", "quickstart", "--cron", "30 2 * * *"))
    assert kfp.requests == []


def test_schedule_says_whether_the_watchdog_watches() -> None:
    assert watched("crnn_r34", "quickstart, crnn_r34").startswith("the watchdog watches crnn_r34")
    assert watched("crnn", "quickstart,crnn_r34").startswith("the watchdog does not watch crnn: ")


def test_without_schedules_it_says_so(kfp: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("schedules") == 0
    assert capsys.readouterr().out == "nothing is scheduled: make schedule PIPELINE=...\n"
    assert verb("schedules", "--json") == 0
    assert capsys.readouterr().out == "[]\n"


def test_schedules_tells_when_what_ran_last_and_what_is_stale(
    kfp: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("schedule", "quickstart", "--set", "train.epochs=2", "--cron", "0 30 2 * * *") == 0
    told, watchdog, *_ = capsys.readouterr().out.splitlines()
    assert watchdog.startswith("the watchdog does not watch quickstart: add it to spec.nightly.recipes of manifests/")
    nights = [datetime.now(UTC).replace(hour=2, minute=30, second=0) + timedelta(days=day) for day in range(5)]
    nights = [night for night in nights if night > datetime.now(UTC)][:3]
    assert told == "At 02:30 every day (UTC); next: " + ", ".join(f"{night:%a %d %b %H:%M:%S}" for night in nights)
    assert verb("schedule", "seq2seq_fsns", "--hardware", "ascend-8p", "--cron", "0 0 4 * * SUN") == 0
    first, second = kfp.made("recurringruns")
    kfp.tick(first["recurring_run_id"], "FAILED")
    kfp.tick(first["recurring_run_id"], "SUCCEEDED")["display_name"] = "the newest"
    second["description"] = second["description"].replace("ascend-8p", "cpu")
    second["mode"] = "DISABLE"
    kfp.add("recurringruns", "recurring_run_id", {**first, "description": "somebody else's"})
    kfp.page_limit = 1
    capsys.readouterr()
    assert verb("schedules") == 0
    lines = [[cell.strip() for cell in line.split("  ") if cell] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["schedule", "when", "next", "last run", "is", "pipeline"],
        ["quickstart nightly", "At 02:30 every day", f"{nights[0]:%Y-%m-%d %H:%M} UTC", "the newest: SUCCEEDED", "on",
         "current"],
        ["seq2seq_fsns nightly", "At 04:00 on Sunday", "-", "-", "off", "stale: make schedule renews it"],
    ]  # fmt: skip
    assert verb("schedules", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def test_a_schedule_of_options_that_are_no_more_is_listed_as_stale(
    kfp: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("schedule", "quickstart") == 0
    entry = kfp.made("recurringruns")[0]
    for options, reason in [
        ("quickstart --speed=9", "stale: its options are of another version"),
        ("slowstart", "stale: recipe 'slowstart'"),
    ]:
        entry["description"] = entry["description"].replace("options=quickstart", f"options={options}", 1)
        assert verb("schedules") == 0
        assert reason in capsys.readouterr().out
        entry["description"] = entry["description"].replace(f"options={options}", "options=quickstart", 1)
