"""The verbs of `python -m pipelines` that need a cluster: submit, schedule, schedules, unschedule, doctor."""

import argparse
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.building import build_pipeline, compiled, new_run_tag, options_of
from pipelines.cluster import cron
from pipelines.cluster.site import load_site
from pipelines.output import add_json_option, print_json, to_apply, to_type, told_beside

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

NIGHTLY = "0 30 2 * * *"


def add_cluster_verbs(
    verbs: "Verbs", recipe: argparse.ArgumentParser, other: argparse.ArgumentParser, night: argparse.ArgumentParser
) -> None:
    """Add the verbs to the command line; `recipe` has the options that make a pipeline, `other` and `night` a run's."""
    submits = verbs.add_parser("submit", parents=[recipe, night, other], help="start a run on Kubeflow Pipelines")
    submits.add_argument(
        "--run-tag", default="", help="continue the work of an earlier run, which has ended: its tag, id or name"
    )
    submits.add_argument("--wait", action="store_true", help="follow the run to its end; code 0 if it succeeds")
    submits.set_defaults(verb=_submit)
    zone = argparse.ArgumentParser(add_help=False)
    zone.add_argument("--timezone", default="UTC", help="the cluster scheduler's own, its CRON_SCHEDULE_TIMEZONE")
    schedules = verbs.add_parser("schedule", parents=[recipe, zone], help="let the cluster run the pipeline by itself")
    schedules.add_argument("--cron", default=NIGHTLY, help=f"six fields, seconds first, '{NIGHTLY}' by default")
    schedules.set_defaults(verb=_schedule)
    lists = verbs.add_parser("schedules", parents=[zone], help="list what the cluster runs by itself")
    add_json_option(lists, "the list")
    lists.set_defaults(verb=_schedules, options_parser=recipe)
    ends = verbs.add_parser("unschedule", parents=[zone], help="let the cluster run the pipeline no more")
    ends.add_argument("recipe", help="the recipe's name")
    ends.set_defaults(verb=_unschedule)
    checks = verbs.add_parser("doctor", help="check a site: servers, rights, devices, images")
    add_json_option(checks, "the findings")
    checks.set_defaults(verb=_doctor)


def _submit(options: argparse.Namespace) -> int:
    recipe, pipeline = build_pipeline(options, options.nightly)
    from pipelines.cluster import client, follow, schedule, submit

    server = client.connect_kubeflow()
    run_tag = new_run_tag(recipe.name)
    if options.run_tag:
        earlier = submit.run_named(server, recipe.name, options.run_tag)
        run_tag = submit.tag_of(earlier)
        if submit.is_night(earlier) and not options.nightly:
            options.nightly = True
            pipeline = build_pipeline(options, nightly=True)[1]
        told = submit.changed(schedule.options_before(server, earlier), options_of(options))
        print(told, end="", flush=True)
    spec = compiled(pipeline)
    published = submit.publish(server, recipe.name, spec)
    print(f"pipeline {published.pipeline}, version {published.version}", flush=True)
    run = submit.start_run(server, published, run_tag, options_of(options), again=bool(options.run_tag))
    print(f"run {run_tag}\n{server.page_of(run.run_id)}", flush=True)
    if options.profile:
        print("trace: among the artifacts of the run in MLflow, below trace/, when training has ended", flush=True)
    return follow.follow(server, run.run_id, spec, run_tag) if options.wait else 0


def _schedule(options: argparse.Namespace) -> int:
    zone, expression = cron.zone(options.timezone), cron.checked(options.cron)
    recipe, pipeline = build_pipeline(options, nightly=True)
    from pipelines.cluster import client, schedule

    plan = schedule.Schedule(recipe=recipe.name, spec=compiled(pipeline), cron=expression, options=options_of(options))
    times = [f"{time:%a %d %b %H:%M:%S}" for time in cron.next_times(expression, datetime.now(zone), 3)]
    print(f"{cron.in_words(expression)} ({options.timezone}); next: {', '.join(times)}", flush=True)
    print(watched(recipe.name, load_site().nightly.recipes), flush=True)
    if told := silent_too_long(expression, datetime.now(zone), load_site().nightly.silence_h):
        print(told, flush=True)
    schedule.reconcile(client.connect_kubeflow(), plan, zone)
    return 0


def watched(recipe: str, recipes: str) -> str:
    """Say whether the watchdog tells somebody where a recipe's nights stay out, and how to make it."""
    if recipe in [name.strip() for name in recipes.split(",")]:
        return f"the watchdog watches {recipe}, once the manifests are applied that say so"
    return (f"the watchdog does not watch {recipe}: add it to spec.nightly.recipes of manifests/site/values.yaml, then "
            f"{to_apply()}")  # fmt: skip


def silent_too_long(expression: str, now: datetime, silence_h: int) -> str:
    """Say where a schedule is silent for longer than the watchdog bears, "" where it never is in the next year."""
    start, end = cron.longest_gap(expression, now)
    gap_h = (end.astimezone(UTC) - start.astimezone(UTC)).total_seconds() / 3600
    if gap_h <= silence_h:
        return ""
    return (f"its longest silence is {gap_h:g} h, {start:%a %d %b %Y %H:%M} to {end:%a %d %b %Y %H:%M}; the watchdog "
            f"alarms after {silence_h} h without a good night, spec.nightly.silence_h of the site's values: set it "
            f"above {gap_h:g} h and a night's own time")  # fmt: skip


def _schedules(options: argparse.Namespace) -> int:
    from pipelines.cluster import client, schedule

    def rebuilt(words: str) -> tuple[str, str]:
        try:
            today = options.options_parser.parse_args(shlex.split(words))
        except SystemExit:
            raise ValueError("its options are of another version") from None
        recipe, pipeline = build_pipeline(today, nightly=True)
        return recipe.name, compiled(pipeline)

    head = ("schedule", "when", "next", "last run", "is", "pipeline")
    with told_beside(options.json):
        table = [head, *schedule.rows(client.connect_kubeflow(), cron.zone(options.timezone), rebuilt)]
    if options.json:
        print_json([dict(zip(head, row, strict=True)) for row in table[1:]])
        return 0
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    if len(table) == 1:
        print(f"nothing is scheduled: {to_type('schedule', 'PIPELINE=...', 'RECIPE')}")
        return 0
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _unschedule(options: argparse.Namespace) -> int:
    from pipelines.cluster import client, schedule

    schedule.unschedule(client.connect_kubeflow(), options.recipe, cron.zone(options.timezone))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from pipelines.cluster.doctor import doctor

    return doctor(options.json)
