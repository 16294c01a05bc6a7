"""What Kubeflow's page of a run shows of it beside the report: single numbers; and a table of the exported files."""

from typing import Any


def metrics(summary: dict[str, Any]) -> dict[str, float]:
    """Return a run's figures by name: accuracy in per cent per benchmark and on average, and against the champion."""
    found = {f"{row['name']} %": 100 * row["accuracy"] for row in summary["benchmarks"]}
    if summary["mean_accuracy"] is not None:
        found["mean %"] = 100 * summary["mean_accuracy"]
    if summary["champion"]:
        found["points to the champion"] = 100 * summary["champion"]["difference"]
    return {name: round(value, 4) for name, value in found.items()}


def places(summary: dict[str, Any]) -> dict[str, str]:
    """Return where a run is elsewhere, as metadata of its artifacts."""
    return {
        "run_tag": summary["run_tag"],
        "mlflow": summary["mlflow"]["url"] or "none",
        "git_commit": summary["git_commit"],
    }


def files_table(summary: dict[str, Any]) -> str:
    """Return a Markdown table: each exported file against the trained recogniser; empty where none was tried."""
    if not summary["formats"]:
        return ""
    lines = ["| format | equal texts | logits within | ms at batch 1 | images/s at 64 | MB |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    return "\n".join([*lines, *map(_row, summary["formats"])])


def _row(entry: dict[str, Any]) -> str:
    if not entry["made"]:
        return f"| {entry['format']} | not made: {entry['reason']} | | | | |"
    cells = (
        entry["format"],
        f"{entry['texts_equal']}/{entry['samples']}",
        f"{entry['max_logit_difference']:.1e}",
        f"{entry['latency_ms_batch1']:.2f}",
        f"{entry['images_per_s_batch64']:,.0f}",
        f"{entry['file_bytes'] / 1e6:.1f}",
    )
    return f"| {' | '.join(cells)} |"
