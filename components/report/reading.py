"""How a recogniser reads, summed over its benchmarks: accuracy by word length, confused characters, calibration."""

import math
from collections import Counter
from typing import Any

from wordmill.store.artifacts import Manifest


def sum_by_length(evaluations: list[Manifest]) -> list[dict[str, int]]:
    """Return {length, total, correct} by rising length of the word, in characters."""
    total, correct = Counter[int](), Counter[int]()
    for row in _rows(evaluations, "by_length"):
        total[row["length"]] += row["total"]
        correct[row["length"]] += row["correct"]
    return [{"length": length, "total": total[length], "correct": correct[length]} for length in sorted(total)]


def sum_confusion(evaluations: list[Manifest]) -> list[dict[str, Any]]:
    """Return {truth, read, count}, the most frequent first; an empty text stands for no character."""
    counts = Counter[tuple[str, str]]()
    for row in _rows(evaluations, "confusion"):
        counts[row["truth"], row["read"]] += row["count"]
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"truth": truth, "read": read, "count": count} for (truth, read), count in ordered]


def sum_calibration(evaluations: list[Manifest], fact: str = "calibration") -> dict[str, Any]:
    """Return the expected calibration error (Guo et al. 2017) over all samples and its bins; one without any has None.

    fact: `uncalibrated` for that of confidences without a temperature.

    A bin holds {low, high, count, confidence, accuracy}: its limits, its samples, and the two means that a calibrated
    recogniser has alike, all 0..1.
    """
    bins = [_together(rows) for rows in zip(*(item.facts[fact]["bins"] for item in evaluations), strict=True)]
    filled = [row for row in bins if row["count"]]
    gaps = math.fsum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in filled)
    return {"ece": gaps / sum(row["count"] for row in filled), "bins": bins}


def _together(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the bin of all samples from the same bin of every benchmark."""
    filled = [row for row in rows if row["count"]]
    count = sum(row["count"] for row in filled)
    means = {key: math.fsum(row["count"] * row[key] for row in filled) / count if count else None
             for key in ("confidence", "accuracy")}  # fmt: skip
    return {"low": rows[0]["low"], "high": rows[0]["high"], "count": count, **means}


def _rows(evaluations: list[Manifest], fact: str) -> list[dict[str, Any]]:
    return [row for evaluation in evaluations for row in evaluation.facts[fact]]
