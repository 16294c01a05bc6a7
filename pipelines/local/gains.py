"""What training on for own words has gained on them and lost on others: two recognisers on the same words."""

from typing import Any

import numpy as np

from components.gate.pairing import predictions_of
from components.gate.sampling import Paired, bootstrap_means, mean_difference, strata_of
from components.report.gather import gather_run
from wordmill.recipe.sections import Recipe
from wordmill.store.artifacts import Manifest, whole_manifest
from wordmill.store.storage import Store
from wordmill.text.charset import Charset, charset_of
from wordmill.text.protocols import is_correct


def measure_gains(store: Store, run_tag: str, recipe: Recipe, own: str, start_tag: str = "") -> list[dict[str, Any]]:
    """Return for each benchmark of a run, `own` first, both accuracies, their difference and its 95 % interval.

    Before is what the champion read or, where there was none, what was measured of the start under `start_tag`.

    Both are judged by the characters that the new recogniser writes: else what the old one cannot write would be left
    out of its labels, and count as read.
    """
    gathered, charset = gather_run(store, run_tag), charset_of(recipe.data)
    before = {made.name: made for made in gather_run(store, start_tag).of("evaluate")} if start_tag else {}
    if not start_tag and (rivals := gathered.one("rivals")) and (found := rivals.facts["rivals"]):
        before = {name: whole_manifest(store, reference) for name, reference in found[0]["evaluations"].items()}
    rows = []
    for made in sorted(gathered.of("evaluate"), key=lambda made: made.name != own):
        if then := before.get(made.name):
            pair = paired(store, made, then, recipe.evaluation.protocol, charset)
            rows.append(gain_row(pair, own))
    return rows


def paired(store: Store, now: Manifest, then: Manifest, protocol: str, charset: Charset) -> Paired:
    """Return what two measurements of the same samples, in their order, read right by the same rules."""
    ours, theirs = (list(predictions_of(store, manifest)) for manifest in (now, then))
    if [row["truth"] for row in ours] != [row["truth"] for row in theirs]:
        raise ValueError(f"{now.reference} and {then.reference} are not of the same samples of {now.name}")
    rights = [
        (is_correct(protocol, one["prediction"], one["truth"], charset),
         is_correct(protocol, other["prediction"], other["truth"], charset), one["picture"])
        for one, other in zip(ours, theirs, strict=True)
    ]  # fmt: skip
    counted = [(new, old, picture) for new, old, picture in rights if new is not None and old is not None]
    return Paired(name=now.name, candidate=[new for new, _, _ in counted], champion=[old for _, old, _ in counted],
                  pictures=[picture for _, _, picture in counted])  # fmt: skip


def gain_row(pair: Paired, own: str) -> dict[str, Any]:
    """Return one benchmark's figures, shares of 0 to 1; the interval is a bootstrap's over its pictures."""
    strata = strata_of([pair])
    low, high = np.quantile(bootstrap_means(strata), (0.025, 0.975)).tolist()
    total = len(pair.candidate)
    return {"name": pair.name, "own": pair.name == own, "total": total, "before": sum(pair.champion) / total,
            "now": sum(pair.candidate) / total, "difference": mean_difference(strata),
            "interval": [low, high]}  # fmt: skip


def gains_text(rows: list[dict[str, Any]]) -> str:
    """Return the two answers as text: on own words, held out, and on others."""
    lines = []
    for row in rows:
        low, high = (100 * value for value in row["interval"])
        kind = "own words, held out" if row["own"] else "others"
        lines.append(f"  {kind:<20} {row['name']:<24} {100 * row['before']:6.2f} % before, {100 * row['now']:6.2f} % "
                     f"now: {100 * row['difference']:+.2f} points (95 %: {low:+.2f} to {high:+.2f}), "
                     f"{row['total']:,} words")  # fmt: skip
    return "\n".join(["", "what training on for own words has changed", *lines])
