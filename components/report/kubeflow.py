"""What Kubeflow's page of a run shows of it beside the report: numbers, addresses, a table of the exported files."""

import os
from typing import Any

CHARACTERS = 20  # in the matrix that Kubeflow draws
NOTHING = "nothing"  # the truth of a character that was read and is not there, the reading of one that was left out


def metrics(summary: dict[str, Any]) -> dict[str, float]:
    """Return a run's figures by name: accuracy in per cent per benchmark and on average, and against the champion."""
    found = {f"{row['name']} %": 100 * row["accuracy"] for row in summary["benchmarks"]}
    if summary["mean_accuracy"] is not None:
        found["mean %"] = 100 * summary["mean_accuracy"]
    if summary["champion"]:
        found["points to the champion"] = 100 * summary["champion"]["difference"]
    return {name: round(value, 4) for name, value in found.items()}


def confusion_matrix(summary: dict[str, Any]) -> tuple[list[str], list[list[int]]] | None:
    """Return the characters confused most, and how often each, down, was read as each, across; None for none."""
    slips = summary["reading"]["confusion"] if summary["reading"] else []
    counts = {(row["truth"] or NOTHING, row["read"] or NOTHING): row["count"] for row in slips}
    known = list(dict.fromkeys(character for pair in counts for character in pair))[:CHARACTERS]
    if not known:
        return None
    return known, [[counts.get((truth, read), 0) for read in known] for truth in known]


def places(summary: dict[str, Any]) -> dict[str, str]:
    """Return where a run is elsewhere, as metadata of its artifacts."""
    return {
        "run_tag": summary["run_tag"],
        "mlflow": summary["mlflow"]["url"] or "none",
        "report": object_page(summary["report"]) or summary["report"],
        "git_commit": summary["git_commit"],
    }


def object_page(key: str) -> str:
    """Return where people's browsers find an object of the store; "" where the site names no such place."""
    return _page("WORDMILL_S3_PAGES", key)


def run_page(run: str) -> str:
    """Return where people's browsers find a run of Kubeflow's; "" where the site names no such place."""
    return _page("WORDMILL_KUBEFLOW_PAGES", f"#/runs/details/{run}")


def _page(variable: str, path: str) -> str:
    pages = os.environ.get(variable)
    return f"{pages.rstrip('/')}/{path}" if pages else ""


def is_inside() -> bool:
    """Tell whether the address of MLflow's pages is the stages' own, which people's browsers may not reach."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("WORDMILL_MLFLOW_PAGES")


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
