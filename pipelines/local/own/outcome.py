"""What comes after a run that has trained on for own words: how much better and worse it reads, the learning curve.

Its report is made again when they are known: a run is whole and registered without them.
"""

import json
import time
from pathlib import Path
from typing import Any

from components.report.gather import gather_run
from pipelines.local import run, services
from pipelines.local.evaluating import stage_program
from pipelines.local.own.curve import learning_curve
from pipelines.local.own.gains import gains_text, measure_gains
from pipelines.training import recorded_tasks
from wordmill.recipe.sections import Recipe
from wordmill.store.artifacts import Manifest, digest, record_manifest, to_document
from wordmill.store.files import locked, write_atomically
from wordmill.store.stages import run_stage
from wordmill.store.storage import Store


def told_outcome(
    store: Store, recipe: Recipe, own: str, test: str, start: Path, run_tag: str, where: tuple[str, int] | None
) -> str:
    """Measure what a run has gained and lost, and the learning curve, record both, and return them as text.

    recipe: as the run had it; own: the data set; test: the benchmark of own words, "" for none; start: the weights that
    the run began with; where: device and number of processes of the curve's trainings, None for no curve.
    """
    folder, found = services.STATE / "runs" / run_tag, dict[str, Any]()

    def work(store: Store) -> tuple[Manifest, bool]:
        started, gathered = time.monotonic(), gather_run(store, run_tag)
        packed = gathered.one("shard")
        if packed is None:
            raise RuntimeError(f"run {run_tag} has no record of its shards")
        shards = folder / "shards.json"
        samples = {name: int(one.facts["samples"]) for name, one in gathered.datasets.items()}
        write_atomically(shards, json.dumps(to_document(packed)))
        found["gains"] = measure_gains(store, gathered, recipe, test, start, folder)
        if where:
            found["curve"] = learning_curve(recipe, samples, own, start, shards, where, folder)
        key = digest({"stage": "tune", "name": own, "run_tag": run_tag})
        made = record_manifest(store, stage="tune", name=own, key=key, inputs={"run_tag": run_tag}, facts=found,
                               seconds=time.monotonic() - started)  # fmt: skip
        return made, False

    with locked(services.STATE / "run.lock", waiting="another run has begun: waiting until it ends"):
        run_stage("tune", own, run_tag, str(folder / "tuned.json"), work)
        report_again(store, recipe, run_tag, folder)
    write_atomically(folder / "tune.json", json.dumps(found, indent=1))
    told = [f"  {found['curve']['text']}"] if where else []
    return "\n".join([gains_text(found["gains"]), *told, f"  report  {folder / 'report.html'}"])


def report_again(store: Store, recipe: Recipe, run_tag: str, folder: Path) -> None:
    """Make a run's report of all that it has recorded by now, here and in MLflow."""
    expected = json.dumps(recorded_tasks(recipe, nightly=False))
    stage_program("report", run_tag, folder / "again" / "report.json", recipe=recipe.name, state="", expected=expected,
                  nightly="false")  # fmt: skip
    summary = store.get_json(f"runs/{run_tag}/summary.json")
    if summary is None:
        raise RuntimeError(f"runs/{run_tag}/summary.json is missing in bucket '{store.bucket}'")
    run.keep_report(store, folder, run_tag, summary)
