"""Recurring runs, reconciled: whatever was there, one enabled schedule of the wanted spec is left.

The server can neither update a schedule nor keep names unique, and deleting one deletes its running runs. So each
call below leaves a state from which the next reconcile reaches the same end.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

import kfp_server_api

from pipelines.cluster import cron
from pipelines.cluster.client import FINISHED, RejectedCallError, Server
from pipelines.cluster.site import STAGE_ACCOUNT
from pipelines.cluster.submit import WORKFLOW_ID, experiment, find_experiment, options_of_run, publish, runs_of
from pipelines.output import to_type
from wordmill.store.artifacts import digest

# A run that has just been started is not listed before the cluster's agents have reported it.
UNSEEN = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is to run when: a recipe's compiled pipeline, a checked cron expression, the options it was made with."""

    recipe: str
    spec: str
    cron: str
    options: str

    @property
    def name(self) -> str:
        """Return the schedule's name, one to a recipe."""
        return f"{self.recipe} nightly"

    @property
    def parameters(self) -> dict[str, str]:
        """Return the parameters of each run; its id becomes a part of its tag.

        Macros such as [[ScheduledTime]] Kubeflow replaces in no v2 pipeline.
        """
        return {"run_tag": f"{self.recipe}-{WORKFLOW_ID}"}

    @property
    def spec_hash(self) -> str:
        """Return the digest of all that makes a schedule: another digest, another schedule."""
        return digest([self.spec, self.cron, self.parameters, STAGE_ACCOUNT])[:16]


def reconcile(server: Server, plan: Schedule, zone: tzinfo) -> None:
    """Leave one enabled schedule of the plan, beside it none of its name but those whose run still goes on.

    zone: the scheduler's time zone.
    """
    experiment_id = experiment(server, plan.recipe)

    def find() -> Any:
        return _best(schedules_of(server, experiment_id, plan.name), plan.spec_hash)

    if find() is None:
        create = server.client.recurring_runs.recurring_run_service_create_recurring_run
        server.found_or_made(f"create schedule '{plan.name}'", find, create, _body(server, plan))
        print(f"created schedule '{plan.name}' {plan.spec_hash}")
    everything = schedules_of(server, experiment_id, plan.name)
    kept = _best(everything, plan.spec_hash)  # another process may have made one too: both keep the same
    if kept is None:
        raise RuntimeError(f"schedule '{plan.name}' was removed at the same moment: {to_type('schedule')} again")
    others = [old for old in everything if old.recurring_run_id != kept.recurring_run_id]
    if is_on(kept) and not others:
        print(f"schedule '{plan.name}' {plan.spec_hash} is as wanted: nothing to do")
    for other in others:
        if is_on(other):
            print(f"it replaces what ran {_when(other)} with options '{_options(other)}'")
        switch(server, other, on=False)
    switch(server, kept, on=True)
    for other in others:
        remove_if_idle(server, other, zone)


def unschedule(server: Server, recipe: str, zone: tzinfo) -> None:
    """Switch a recipe's schedules off and remove those whose runs have ended."""
    found = find_experiment(server, recipe)
    plans = schedules_of(server, found.experiment_id, f"{recipe} nightly") if found else []
    for old in plans:
        switch(server, old, on=False)
    for old in plans:
        remove_if_idle(server, old, zone)
    if not plans:
        print(f"recipe {recipe} has no schedule")


def schedules_of(server: Server, experiment_id: str, name: str) -> list[Any]:
    """Return the schedules of a name in an experiment, the oldest first."""
    return server.called(name, *_listing(server), experiment_id=experiment_id)


def _listing(server: Server) -> tuple[str, Callable[..., Any], str]:
    """Return what lists schedules: in words, the call, and what its reply calls them."""
    call = server.client.recurring_runs.recurring_run_service_list_recurring_runs
    return "list the schedules", call, "recurring_runs"


def options_before(server: Server, run: Any) -> str:
    """Return the options that a run was made with, a night's by its schedule; "" where they are not known."""
    if not run.recurring_run_id:
        return options_of_run(run)
    known = server.listed(*_listing(server), experiment_id=run.experiment_id)
    return next((_options(old) for old in known if old.recurring_run_id == run.recurring_run_id), "")


def rows(server: Server, zone: tzinfo, rebuilt: Callable[[str], tuple[str, str]]) -> Iterator[tuple[str, ...]]:
    """Give name, time in words, next time, last run, whether on, whether current, of all schedules made here.

    `rebuilt` returns recipe and compiled pipeline of a schedule's options as they would be made today.
    """
    for old in server.listed(*_listing(server), namespace=server.namespace):
        if not hash_of(old):
            continue
        expression = old.trigger.cron_schedule.cron
        times = cron.next_times(expression, datetime.now(zone), 1) if is_on(old) else []
        runs = (run for run in runs_of(server, old.experiment_id) if run.recurring_run_id == old.recurring_run_id)
        last = next(runs, None)
        following = f"{times[0]:%Y-%m-%d %H:%M %Z}" if times else "-"
        latest = f"{last.display_name}: {last.state}" if last else "-"
        state = "on" if is_on(old) else "off"
        yield old.display_name, _when(old), following, latest, state, _age(old, rebuilt)


def _best(schedules: list[Any], spec_hash: str) -> Any:
    """Return the schedule of this hash to keep, an enabled one first, then the oldest; None if there is none.

    One that is off and has missed a time since it was made would start a run as soon as it is switched on.
    """
    same = [old for old in schedules if hash_of(old) == spec_hash and (is_on(old) or not _missed(old))]
    return min(same, key=lambda old: (not is_on(old), old.created_at, old.recurring_run_id), default=None)


def _missed(schedule: Any) -> bool:
    """Tell whether a time of a schedule has passed since it was made."""
    now = datetime.now(schedule.created_at.tzinfo)
    return cron.next_times(schedule.trigger.cron_schedule.cron, schedule.created_at, 1)[0] <= now


def _when(schedule: Any) -> str:
    """Return when a schedule starts runs, as a sentence."""
    return cron.in_words(schedule.trigger.cron_schedule.cron)


def _options(schedule: Any) -> str:
    """Return the options that a schedule was made with, "" where they are not known."""
    found = re.search(r"^options=(.*)$", schedule.description or "", re.MULTILINE)
    return found[1] if found else ""


def hash_of(schedule: Any) -> str:
    """Return the spec hash in a schedule's description, "" for one that was not made here."""
    found = re.search(r"^spec_hash=(\w+)$", schedule.description or "", re.MULTILINE)
    return found[1] if found else ""


def is_on(schedule: Any) -> bool:
    """Tell whether a schedule starts runs."""
    return bool(schedule.mode == "ENABLE")


def switch(server: Server, schedule: Any, on: bool) -> None:
    """Let a schedule start runs, or no more."""
    if is_on(schedule) == on:
        return
    calls, verb = server.client.recurring_runs, "enable" if on else "disable"
    call = calls.recurring_run_service_enable_recurring_run if on else calls.recurring_run_service_disable_recurring_run
    server.ask(f"{verb} schedule '{schedule.display_name}'", call, schedule.recurring_run_id)
    print(f"{verb}d schedule '{schedule.display_name}' {hash_of(schedule)}")


def remove_if_idle(server: Server, schedule: Any, zone: tzinfo) -> None:
    """Delete a schedule that is off, unless a run of it goes on, which would be deleted with it."""
    label = f"schedule '{schedule.display_name}' {hash_of(schedule)}"
    if reason := _busy(server, schedule, zone):
        print(f"left {label} switched off: {reason}; the same command later removes it")
        return
    delete = server.client.recurring_runs.recurring_run_service_delete_recurring_run
    try:
        server.ask(f"delete {label}", delete, schedule.recurring_run_id)
    except RejectedCallError as error:
        if error.status != 404:  # gone already: the answer to an earlier try was lost
            raise
    print(f"deleted {label}")


def _busy(server: Server, schedule: Any, zone: tzinfo) -> str:
    """Return why a run of a schedule may go on, "" if none does."""
    for run in runs_of(server, schedule.experiment_id):
        if run.recurring_run_id == schedule.recurring_run_id and run.state not in FINISHED:
            return f"its run {run.display_name} still goes on"
    now = datetime.now(zone)
    was_on = is_on(schedule) or now - schedule.updated_at < UNSEEN
    if was_on and hash_of(schedule) and cron.next_times(schedule.trigger.cron_schedule.cron, now - UNSEEN, 1)[0] <= now:
        return "it may have started a run in the last minutes"
    return ""


def _body(server: Server, plan: Schedule) -> kfp_server_api.V2beta1RecurringRun:
    published = publish(server, plan.recipe, plan.spec)
    return kfp_server_api.V2beta1RecurringRun(
        display_name=plan.name,
        description=f"{cron.in_words(plan.cron)}. Made by `wordmill schedule`, version {published.version}.\n"
        f"options={plan.options}\nspec_hash={plan.spec_hash}",
        experiment_id=published.experiment_id, namespace=server.namespace or None,
        pipeline_version_reference=published.reference(),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=plan.parameters),
        service_account=STAGE_ACCOUNT,
        trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=plan.cron)),
        mode=kfp_server_api.RecurringRunMode.DISABLE, max_concurrency="1", no_catchup=True,
    )  # fmt: skip


def _age(schedule: Any, rebuilt: Callable[[str], tuple[str, str]]) -> str:
    """Return `current`, or why the schedule is not what its options would make today."""
    options = _options(schedule)
    if not options:
        return "stale: made by an earlier version"
    try:
        recipe, spec = rebuilt(options)
    except ValueError as error:
        return f"stale: {error}"
    plan = Schedule(recipe=recipe, spec=spec, cron=schedule.trigger.cron_schedule.cron, options=options)
    return "current" if plan.spec_hash == hash_of(schedule) else f"stale: {to_type('schedule')} renews it"
