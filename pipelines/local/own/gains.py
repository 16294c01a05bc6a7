"""What training on for own words has gained on them and lost on others: two recognisers on the same words."""

from pathlib import Path
from typing import Any

import numpy as np

from components.gate.sampling import Paired, bootstrap_means, mean_difference, strata_of
from components.report.gather import Gathered
from components.report.measuring import measure_file
from wordmill.inference.evaluation import predictions_of
from wordmill.inference.reading import open_recogniser
from wordmill.recipe.sections import Recipe
from wordmill.store.artifacts import Manifest, read_manifest, stored_manifest, whole_manifest
from wordmill.store.storage import Store, hash_file
from wordmill.text.charset import Charset, charset_of
from wordmill.text.protocols import is_correct

Rows = list[dict[str, Any]]


def measure_gains(store: Store, gathered: Gathered, recipe: Recipe, own: str, start: Path, folder: Path) -> Rows:
    """Return for each benchmark of a run, `own` first, both accuracies, their difference and its 95 % interval.

    Before are those of the weights that training started from. Both are judged by the characters that the new
    recogniser writes: else what the old one cannot write would be left out of its labels, and count as read.
    """
    protocol, charset = recipe.evaluation.protocol, charset_of(recipe.data)
    measured = sorted(gathered.of("evaluate"), key=lambda made: made.name != own)
    before = known_before(store, gathered, start)
    if lacking := [made.name for made in measured if made.name not in before]:
        before |= measure_before(gathered, protocol, start, lacking, folder)
    return [gain_row(paired(store, made, before[made.name], protocol, charset), own) for made in measured]


def known_before(store: Store, gathered: Gathered, start: Path) -> dict[str, Manifest]:
    """Return how the weights that a run started from were measured by it, where they are a champion's."""
    rivals = gathered.one("rivals")
    for rival in rivals.facts["rivals"] if rivals else []:
        trained = stored_manifest(store, rival["model"]) if rival["model"] else None
        if trained and trained.object("model.safetensors").sha256 == hash_file(start):
            return {name: whole_manifest(store, reference) for name, reference in rival["evaluations"].items()}
    return {}


def measure_before(
    gathered: Gathered, protocol: str, start: Path, names: list[str], folder: Path
) -> dict[str, Manifest]:
    """Read benchmarks of a run with the weights that it started from; `folder` is the run's, whose name is its tag."""
    shards = folder / "shards.json"
    recogniser, found = open_recogniser(start), dict[str, Manifest]()
    for name in names:
        output = folder / "before" / f"{name}.json"
        measure_file(recogniser, start, protocol, shards, name, f"{folder.name}-before", output)
        found[name] = read_manifest(output)
    return found


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


def gains_text(rows: Rows) -> str:
    """Return the two answers as text: on own words, held out, and on others."""
    lines = []
    for row in rows:
        low, high = (100 * value for value in row["interval"])
        kind = "own words, held out" if row["own"] else "others"
        lines.append(f"  {kind:<20} {row['name']:<24} {100 * row['before']:6.2f} % before, {100 * row['now']:6.2f} % "
                     f"now: {100 * row['difference']:+.2f} points (95 %: {low:+.2f} to {high:+.2f}), "
                     f"{row['total']:,} words")  # fmt: skip
    return "\n".join(["", "what training on for own words has changed", *lines])
