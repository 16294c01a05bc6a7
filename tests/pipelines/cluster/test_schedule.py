"""`schedule` against a server in memory: from whatever was there to one enabled schedule, over any crash."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.cluster import client, cron, schedule
from pipelines.cluster.client import connect_kubeflow
from pipelines.cluster.site import load_site
from pipelines.cluster.submit import runs_of, tag_of
from tests.pipelines.cluster.kfp_server import standalone
from tests.pipelines.cluster.kfp_state import KfpServer, now

# Twelve hours from now: no run may have just been started.
FAR = f"0 30 {(datetime.now(UTC).hour + 12) % 24} * * *"


# What the server and the client read of a compiled pipeline, and no more: the tests below upload it a hundred times.
SPEC = """
pipelineInfo: {name: wordmill-quickstart-nightly, description: Train and prove quickstart}
root: {dag: {tasks: {}}, inputDefinitions: {parameters: {run_tag: {parameterType: STRING}}}}
components: {}
"""


@pytest.fixture
def spec() -> str:
    return SPEC


def plan(spec: str, cron: str = FAR, options: str = "quickstart") -> schedule.Schedule:
    return schedule.Schedule(recipe="quickstart", spec=spec, cron=cron, options=options)


def other(spec: str) -> str:
    return spec.replace("Train and prove", "Prove and train")


def reconciled(spec: str, cron: str = FAR) -> None:
    schedule.reconcile(connect_kubeflow(), plan(spec, cron), UTC)


def changes(kfp: KfpServer) -> list[str]:
    """Return what was changed among the schedules: `create`, `enable 0` for the first one made, and so on."""
    names: dict[str, int] = {}
    told = []
    for request in kfp.requests:
        verb, _, place = request.partition(" ")
        if request == "POST recurringruns":
            told.append("create")
        elif place.startswith("recurringruns/"):
            name, _, action = place.removeprefix("recurringruns/").partition(":")
            told.append(f"{action or verb.lower()} {names.setdefault(name, len(names))}")
    return told


def left(kfp: KfpServer) -> list[tuple[str, str]]:
    """Return hash and mode of the schedules, the oldest first."""
    return [(entry["description"].rpartition("=")[2], entry["mode"]) for entry in kfp.made("recurringruns")]


def test_a_standalone_server_is_told_of_no_namespace(
    kfp: KfpServer, spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = standalone(tmp_path)
    monkeypatch.setattr(client, "load_site", lambda: load_site(values))
    kfp.multi_user = False
    reconciled(spec)
    (made,) = kfp.made("recurringruns")
    assert (made["mode"], made.get("namespace")) == ("ENABLE", None)
    assert made["service_account"] == "wordmill-stage"


def test_a_schedule_is_created_disabled_and_then_enabled(kfp: KfpServer, spec: str) -> None:
    reconciled(spec)
    assert changes(kfp) == ["create", "enable 0"]
    (made,), (version,) = kfp.made("recurringruns"), kfp.made("versions")
    assert made["display_name"] == "quickstart nightly"
    assert (made["mode"], made["no_catchup"], made["max_concurrency"]) == ("ENABLE", True, "1")
    assert made["trigger"] == {"cron_schedule": {"cron": FAR}}
    assert made["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert made["runtime_config"]["parameters"] == {"run_tag": "quickstart-{{workflow.uid}}"}
    assert made["service_account"] == "wordmill-stage"
    first, options, last = made["description"].splitlines()
    assert first.startswith("At ")
    assert first.endswith(f" every day. Made by `wordmill schedule`, version {version['name']}.")
    assert (options, last) == ("options=quickstart", f"spec_hash={plan(spec).spec_hash}")


def test_every_night_has_a_run_tag_of_its_own(kfp: KfpServer, spec: str) -> None:
    reconciled(spec)
    nights = [kfp.tick(kfp.made("recurringruns")[0]["recurring_run_id"]) for _ in range(2)]
    runs = list(runs_of(connect_kubeflow(), nights[0]["experiment_id"]))
    assert [tag_of(run) for run in runs] == [f"quickstart-{night['run_id']}" for night in reversed(nights)]


def test_an_old_schedule_that_is_off_is_made_again_instead_of_switched_on_which_would_start_a_run_at_once(
    kfp: KfpServer, spec: str
) -> None:
    reconciled(spec)
    (old,) = kfp.made("recurringruns")
    old.update(mode="DISABLE", created_at=now(ago=timedelta(days=2)), updated_at=now(ago=timedelta(days=1)))
    kfp.requests.clear()
    reconciled(spec)
    assert changes(kfp) == ["create", "enable 0", "delete 1"]
    assert (left(kfp), kfp.made("runs")) == ([(plan(spec).spec_hash, "ENABLE")], [])


def test_a_second_persons_schedule_replaces_the_first_ones_and_says_so(
    kfp: KfpServer, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs = plan(spec, options="quickstart --set=train.epochs=1"), plan(other(spec), FAR.replace("0 30", "0 40"))
    for wanted in (mine, theirs):
        schedule.reconcile(connect_kubeflow(), wanted, UTC)
    told = f"it replaces what ran {cron.in_words(FAR)} with options 'quickstart --set=train.epochs=1'"
    assert told in capsys.readouterr().out.splitlines()
    assert left(kfp) == [(theirs.spec_hash, "ENABLE")]


def test_the_same_again_changes_nothing(kfp: KfpServer, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    reconciled(spec)
    kfp.requests.clear()
    reconciled(spec)
    assert [request for request in kfp.requests if not request.startswith("GET")] == []
    assert capsys.readouterr().out.endswith("is as wanted: nothing to do\n")


@pytest.mark.parametrize("what", ["spec", "cron"])
def test_a_change_swaps_the_schedules(kfp: KfpServer, spec: str, what: str) -> None:
    reconciled(spec)
    kfp.requests.clear()
    changed = plan(other(spec)) if what == "spec" else plan(spec, FAR.replace("0 30", "0 40"))
    schedule.reconcile(connect_kubeflow(), changed, UTC)
    assert changes(kfp) == ["create", "disable 0", "enable 1", "delete 0"]
    assert left(kfp) == [(changed.spec_hash, "ENABLE")]


def test_a_schedule_whose_run_goes_on_is_removed_only_after_it(kfp: KfpServer, spec: str) -> None:
    reconciled(spec)
    run = kfp.tick(kfp.made("recurringruns")[0]["recurring_run_id"])
    reconciled(other(spec))
    assert [mode for _, mode in left(kfp)] == ["DISABLE", "ENABLE"]
    run["state"] = "SUCCEEDED"
    reconciled(other(spec))
    assert left(kfp) == [(plan(other(spec)).spec_hash, "ENABLE")]
    assert kfp.killed == []


def test_a_schedule_that_may_just_have_started_a_run_is_left_for_some_minutes(
    kfp: KfpServer, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reconciled(spec, "0 * * * * *")
    old = kfp.made("recurringruns")[0]
    reconciled(spec)
    reconciled(spec)
    assert capsys.readouterr().out.count("it may have started a run in the last minutes") == 2
    assert [mode for _, mode in left(kfp)] == ["DISABLE", "ENABLE"]
    old["updated_at"] = now(ago=timedelta(minutes=6))
    reconciled(spec)
    assert left(kfp) == [(plan(spec).spec_hash, "ENABLE")]


def test_duplicates_are_pruned_over_pages_and_other_schedules_are_left_alone(kfp: KfpServer, spec: str) -> None:
    reconciled(spec)
    first = kfp.made("recurringruns")[0]
    foreign = {**first, "display_name": "Quickstart Nightly", "description": "by hand"}
    for entry in (first, foreign, first):
        kfp.add("recurringruns", "recurring_run_id", entry)
    kfp.page_limit = 1
    reconciled(spec)
    assert [entry["recurring_run_id"] for entry in kfp.made("recurringruns") if entry["description"] != "by hand"] == [
        first["recurring_run_id"]
    ]
    assert [entry["mode"] for entry in kfp.made("recurringruns")] == ["ENABLE", "ENABLE"]


class KilledError(BaseException):
    """The process ends here."""


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, at: int, when: str) -> Iterator[None]:
    """End the process before or after its call of this number, counted from 0."""
    count = iter(range(10_000))
    ask_once = client.Server.ask_once

    def dies(self: client.Server, *arguments: Any, **named: Any) -> Any:
        number = next(count)
        if (number, when) == (at, "before"):
            raise KilledError
        reply = ask_once(self, *arguments, **named)
        if (number, when) == (at, "after"):
            raise KilledError
        return reply

    with monkeypatch.context() as patched:
        patched.setattr(client.Server, "ask_once", dies)
        yield


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_call_the_next_reconcile_mends_it(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    wanted = (plan(other(spec)).spec_hash, "ENABLE")
    for at in range(100):
        for table in kfp.tables.values():
            table.clear()
        reconciled(spec)
        try:
            with killed(monkeypatch, at, when):
                reconciled(other(spec))
        except KilledError:
            assert sum(mode == "ENABLE" for _, mode in left(kfp)) <= 1
        else:
            break
        reconciled(other(spec))
        assert left(kfp) == [wanted], f"killed {when} call {at}"
    # Health, four lists and four creations for the new version, and the schedule's own calls.
    assert 12 <= at < 30
    assert kfp.killed == []


@pytest.mark.parametrize("what", ["lost", "500", "slow"])
@pytest.mark.parametrize(
    "where", ["POST recurringruns", "POST .*:enable", "POST .*:disable", "DELETE recurringruns/.*", "GET recurringruns"]
)
def test_a_call_that_fails_once_leaves_no_duplicate(
    kfp: KfpServer, spec: str, what: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciled(spec)
    if what == "slow":
        monkeypatch.setattr(client, "TIMEOUT_S", (30, 1))
    kfp.faults = [(what, where)]
    reconciled(other(spec))
    assert kfp.faults == []
    assert left(kfp) == [(plan(other(spec)).spec_hash, "ENABLE")]


def test_unschedule_switches_off_and_removes_what_is_idle(
    kfp: KfpServer, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reconciled(spec)
    run = kfp.tick(kfp.made("recurringruns")[0]["recurring_run_id"])
    for code in (0, 0):
        with pytest.raises(SystemExit) as end:
            main(["unschedule", "quickstart"])
        assert end.value.code == code
    assert [mode for _, mode in left(kfp)] == ["DISABLE"]
    assert "its run quickstart nightly-1 still goes on; the same command later removes it" in capsys.readouterr().out
    run["state"] = "FAILED"
    schedule.unschedule(connect_kubeflow(), "quickstart", UTC)
    assert (left(kfp), kfp.killed) == ([], [])
    schedule.unschedule(connect_kubeflow(), "quickstart", UTC)
    assert capsys.readouterr().out.endswith("recipe quickstart has no schedule\n")


def test_unschedule_of_a_recipe_that_never_ran_makes_nothing(
    kfp: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule.unschedule(connect_kubeflow(), "quickstrat", UTC)
    assert capsys.readouterr().out == "recipe quickstrat has no schedule\n"
    assert kfp.made("experiments") == []


def test_two_processes_at_the_same_moment_keep_the_same_schedule(kfp: KfpServer, spec: str) -> None:
    reconciled(spec)
    first = kfp.made("recurringruns")[0]
    kfp.tables["recurringruns"] = {}
    # The other process has created its schedule, but not enabled it, when this one's creation arrives.
    kfp.late = ("POST recurringruns", "recurringruns", {first["recurring_run_id"]: {**first, "mode": "DISABLE"}})
    reconciled(spec)
    (left_over,) = kfp.made("recurringruns")
    assert (left_over["recurring_run_id"], left_over["mode"]) == (first["recurring_run_id"], "ENABLE")


def test_of_two_alike_the_one_that_is_on_stays_on(kfp: KfpServer, spec: str) -> None:
    reconciled(spec)
    first = kfp.made("recurringruns")[0]
    second = kfp.add("recurringruns", "recurring_run_id", first)
    first.update(mode="DISABLE")
    kfp.requests.clear()
    reconciled(spec)
    assert changes(kfp) == ["delete 0"]
    assert kfp.made("recurringruns") == [second]
