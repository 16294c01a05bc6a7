"""The exit task: gathers what every stage recorded into a page, a summary and the MLflow run."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from components.report.cluster import fate_of_run
from components.report.gather import Gathered, gather_run
from components.report.logged.datasets import input_sets
from components.report.logged.description import description, links_in_kubeflow, links_in_mlflow
from components.report.logged.entries import columns, curve_points, measured_figures, parameters, tags
from components.report.logged.model import card_text, model_text
from components.report.logged.tables import write_tables
from components.report.notify import close_night
from components.report.page import Extras, collect_extras, report_html
from components.report.summary import summarise
from wordmill.store import experiments, tracking
from wordmill.store.artifacts import Manifest, digest, record_manifest, to_document
from wordmill.store.files import write_atomically
from wordmill.store.stages import run_stage, work_folder
from wordmill.store.storage import Store


def run(*, recipe: str, run_tag: str, state: str, expected: str, nightly: str, output: str) -> str:
    """Write report.html and summary.json of a pipeline run and end its MLflow run, whatever the outcome.

    recipe: name of the recipe; state: what the pipeline's engine says of the run, such as FAILED; expected: JSON list
    of the tasks, stage.name, that record themselves in a whole run; nightly: true where the heartbeat is to be written
    and the webhook to be told; output: file for the manifest, beside which report.html, summary.json and summary.md
    are put.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        if nightly not in ("true", "false"):
            raise ValueError(f"nightly: expected true or false, found {nightly!r}")
        gathered, fate = gather_run(store, run_tag), fate_of_run()
        summary = summarise(gathered, recipe, run_tag, state, json.loads(expected), fate)
        return write_report(store, gathered, summary, nightly == "true", Path(output)), False

    return run_stage("report", recipe, run_tag, output, work)


def write_report(store: Store, gathered: Gathered, summary: dict[str, Any], nightly: bool, output: Path) -> Manifest:
    """Write page and summary, then bring everything to MLflow; both are there even if MLflow does not answer.

    Where the store does not take them, such as a full one, they lie beside the output alone.
    """
    started, recipe, run_tag, lost = time.monotonic(), summary["recipe"], summary["run_tag"], None
    try:
        mlflow_run = tracking.open_run(store, run_tag, recipe)
        summary["mlflow"] = {"run_id": mlflow_run.run_id, "url": mlflow_run.url}
        _log(mlflow_run, gathered, summary)
    except RuntimeError as error:
        lost = error
        summary |= {"ok": False, "errors": [*summary["errors"], f"report {recipe}: {error}"]}
    extras = collect_extras(store, gathered)
    page = _write(store, gathered, summary, extras, output)
    try:
        store.put_bytes(f"runs/{run_tag}/report.html", page.encode(), "text/html; charset=utf-8")
        store.put_json(f"runs/{run_tag}/summary.json", summary)
    except RuntimeError as error:
        lost = lost or error
        summary |= {"ok": False, "errors": [*summary["errors"], f"report {recipe}: {error}"]}
        _write(store, gathered, summary, extras, output)
    if nightly:
        print(f"report {recipe}: webhook: {close_night(store, summary)}", flush=True)
    if lost:
        raise lost
    with work_folder(store, f"report-{run_tag}") as folder:
        tables = _lay_out(store, gathered, summary, page, folder)
        mlflow_run.log_artifact(folder)
    experiments.name_tables(mlflow_run, tables)
    mlflow_run.finish(summary["ok"], summary["stopped"])
    facts = {"summary": f"runs/{run_tag}/summary.json", "report": summary["report"],
             "mlflow_url": summary["mlflow"]["url"]}  # fmt: skip
    inputs = {"run_tag": run_tag, "ok": summary["ok"]}
    return record_manifest(store, stage="report", name=recipe, key=digest({"stage": "report", "run_tag": run_tag}),
                           inputs=inputs, facts=facts, seconds=time.monotonic() - started)  # fmt: skip


def _write(store: Store, gathered: Gathered, summary: dict[str, Any], extras: Extras, output: Path) -> str:
    """Write page and summary, for programs and for Kubeflow's page, beside the output and return the page."""
    page = report_html(summary, extras)
    write_atomically(output.with_name("report.html"), page)
    write_atomically(output.with_name("summary.json"), json.dumps(summary))
    told = description(gathered, summary, links_in_kubeflow(summary, store.bucket))
    title = f"### {summary['recipe']}, run {summary['run_tag']}"
    write_atomically(output.with_name("summary.md"), f"{title}\n\n{told}\n")
    return page


def _log(run: tracking.Run, gathered: Gathered, summary: dict[str, Any]) -> None:
    """Bring what MLflow's pages of the run and its experiment show to MLflow, but for files."""
    noted = {experiments.NOTE: description(gathered, summary, links_in_mlflow(summary, run))}
    experiments.replace_tags(run, tags(summary) | noted)
    run.log_params(parameters(gathered))
    experiments.log_versions(run, summary["versions"])
    run.log_metrics(curve_points(gathered, summary))
    experiments.log_inputs(run, input_sets(gathered))
    experiments.show_columns(run, columns(summary))
    model_id = _describe_model(run, gathered, summary) if summary["gate"] and gathered.one("train") else ""
    digests = {name: packed.key for name, packed in gathered.datasets.items()}
    experiments.log_figures(run, measured_figures(gathered, summary), model_id, digests)


def _describe_model(run: tracking.Run, gathered: Gathered, summary: dict[str, Any]) -> str:
    """Describe the registered model, its version and the logged model behind it; return the last one's id or ""."""
    name, version = tracking.registered_name(summary["recipe"]), summary["gate"]["version"]
    model_id, has_champion = experiments.logged_model(run, name, version), bool(tracking.holder(name, "champion"))
    card = card_text(gathered, summary, run, experiments.example_picture(run, model_id) if model_id else "")
    experiments.describe_version(run, name, version, model_text(gathered, summary, has_champion), card)
    if model_id:
        experiments.describe_logged(run, model_id, card, parameters(gathered))
    return model_id


def _lay_out(store: Store, gathered: Gathered, summary: dict[str, Any], page: str, folder: Path) -> list[str]:
    """Write everything that MLflow keeps of a run into a folder, as it lies there; return which files are tables."""
    write_atomically(folder / "report.html", page)
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1))
    for name, manifest in gathered.manifests.items():
        write_atomically(folder / "manifests" / f"{name}.json", json.dumps(to_document(manifest), indent=1))
    for name, manifest in gathered.datasets.items():
        sheet = folder / "contact_sheets" / f"{name}.png"
        sheet.parent.mkdir(exist_ok=True)
        for entry in manifest.objects:
            if entry.name == "contact_sheet.png":  # what is drawn while training has none
                shutil.copy(store.fetch(entry), sheet)
    return write_tables(store, gathered, folder)
