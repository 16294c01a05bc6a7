"""A run in Markdown, as the description of its page in MLflow and as Kubeflow's summary of it."""

from typing import Any

from components.report.gather import Gathered
from components.report.kubeflow import files_table, is_inside, object_page, run_page
from components.report.logged.entries import used_sets
from components.report.logged.tables import table_path
from wordmill.store.experiments import model_page
from wordmill.store.tracking import Run, registered_name

CHARACTERS = 7500  # of the 8000 that MLflow takes


def description(gathered: Gathered, summary: dict[str, Any], links: str = "") -> str:
    """Return a run in Markdown: how it ended, what was trained on what, figures, files, and links."""
    parts = ["\n\n".join(f"**{error}**" for error in summary["errors"]), decision(summary), trained_on(gathered),
             benchmark_table(summary), files_table(summary), links]  # fmt: skip
    return "\n\n".join(part for part in parts if part)[:CHARACTERS]


def decision(summary: dict[str, Any]) -> str:
    """Return the mean accuracy and what the gate did, with its reasons; empty before anything was measured."""
    if summary["mean_accuracy"] is None:
        return ""
    number = len(summary["benchmarks"])
    over = f"over {number} benchmarks" if number > 1 else f"on {summary['benchmarks'][0]['name']}"
    text = f"**{100 * summary['mean_accuracy']:.2f} %** of words read right {over}"
    gate = summary["gate"]
    if gate is None:
        return f"{text}."
    candidate = f"version {gate['version']} of {registered_name(summary['recipe'])}"
    return f"{text}. The gate has **{gate['outcome']}** {candidate}: {'; '.join(gate['reasons'])}."


def trained_on(gathered: Gathered) -> str:
    """Return what was trained on what, and how; empty before it was done."""
    train, sets = gathered.one("train"), used_sets(gathered)
    if train is None:
        return ""
    model, facts = train.inputs["model"], train.facts
    learnt, checked = (_counted(gathered, sets[use]) for use in ("train", "val"))
    start = f", begun from weights {train.inputs['start'][:12]}" if train.inputs["start"] else ""
    return (
        f"Trained: {model['name']} with {model['backbone']} backbone, {facts['parameters']:,} parameters, on "
        f"{learnt}{start}: {facts['images']:,} pictures in {facts['steps']:,} steps, {facts['framework']}, "
        f"{facts['processes']} {facts['device']} process{'es' if facts['processes'] > 1 else ''}, "
        f"{facts['precision']}. Validated on {checked or 'nothing'}: {100 * facts['val_accuracy']:.2f} %."
    )


def _counted(gathered: Gathered, names: list[str]) -> str:
    return ", ".join(f"{name} ({gathered.datasets[name].facts['samples']:,} pictures)" for name in names)


def benchmark_table(summary: dict[str, Any]) -> str:
    """Return the benchmarks as a Markdown table with 95 % intervals and, where there are any, published figures."""
    rows, known = summary["benchmarks"], summary["published"]
    if not rows:
        return ""
    lines = [f"| benchmark | accuracy | 95 % interval | right / all |{' published |' if known else ''}",
             f"|---|---|---|---|{'---|' if known else ''}"]  # fmt: skip
    for row in rows:
        cells = [row["name"], f"{100 * row['accuracy']:.2f} %", f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
                 f"{row['correct']:,} / {row['total']:,}"]  # fmt: skip
        if known:
            cells.append("" if row["published"] is None else f"{100 * row['published']:.2f} %")
        lines.append(f"| {' | '.join(cells)} |")
    by = f"; published by [{known['by']}]({known['source']}), protocol {known['protocol']}" if known else ""
    protocols = ", ".join(sorted({row["protocol"] for row in rows}))
    return "\n".join([*lines, "", f"Words compared by protocol {protocols}{by}."])


def links_in_mlflow(summary: dict[str, Any], run: Run) -> str:
    """Return where MLflow's pages show more of a run, and which of Kubeflow's runs it is."""
    found = [f"[report]({run.page_of_file('report.html')})"]
    found += [
        f"[readings of {row['name']}]({run.page_of_file(table_path(row['name']))})" for row in summary["benchmarks"]
    ]
    if summary["gate"]:
        page = model_page(registered_name(summary["recipe"]), summary["gate"]["version"])
        found.append(f"[registered model]({page})")
    return f"Pages: {', '.join(found)}.{_in_kubeflow(summary)}"


def links_in_kubeflow(summary: dict[str, Any], bucket: str) -> str:
    """Return where a run is in MLflow and in S3."""
    url, key = summary["mlflow"]["url"], summary["report"]
    inside = f"MLflow run: `{url}`, an address of the cluster (spec.pages of values.yaml names public ones), "
    mlflow = (inside if is_inside() else f"[MLflow run]({url}), ") if url else ""
    place, page = f"s3://{bucket}/{key}", object_page(key)
    stored = f"[{place}]({page})" if page else f"`{place}`"
    return f"Pages: {mlflow}the report is also {stored}, this run's tag {summary['run_tag']}."


def _in_kubeflow(summary: dict[str, Any]) -> str:
    run = summary["kubeflow"]
    if not run:
        return ""
    page = run_page(run)
    return f" Kubeflow's run: {f'[{run}]({page})' if page else f'`{run}`'}."
