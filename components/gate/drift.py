"""What has moved since the champion's run: the data, how sure the champion is of it, and what the candidate reads.

Histograms are compared by their total variation: the share of the samples of one that would have to be others for both
to be alike. What chance alone makes of it a parametric bootstrap tells (Efron and Tibshirani 1993, 16.3), which draws
both anew from what they have together. All comparisons of a night share one level (Bonferroni; Dunn 1961, JASA 56).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from components.gate.sampling import Paired
from wordmill.text.metrics import mcnemar_exact

Histogram = Mapping[str, int]  # what a sample has -> how many samples have it

RESAMPLES = 4999
NIGHTS = 0.01  # the share of nights without any change that say that something has moved
MATTERS = 0.02  # a distance, or a difference of accuracies, below which nobody need look
MOST_MOVED = 3  # values of a histogram that have moved most
SLICES = ((1, 3), (4, 6), (7, 9), (10, 255))  # characters of a label


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far two histograms are apart, 0..1, up to where chance alone gets in 95 % of cases, and how rarely so far."""

    distance: float
    chance: float
    p: float


def distance_of(ours: Histogram, theirs: Histogram) -> Distance:
    """Compare two histograms, each of at least one sample, every sample counted once and drawn independently."""
    names = sorted(ours.keys() | theirs.keys())
    counts = np.array([[side.get(name, 0) for name in names] for side in (ours, theirs)])
    totals, shares = counts.sum(axis=1), counts.sum(axis=0) / counts.sum()
    found = 0.5 * float(np.abs(counts[0] / totals[0] - counts[1] / totals[1]).sum())
    generator = np.random.Generator(np.random.Philox(0))  # the same histograms give the same
    one, other = (generator.multinomial(total, shares, RESAMPLES) / total for total in totals)
    drawn = 0.5 * np.abs(one - other).sum(axis=1)
    as_far = int((drawn >= found - 1e-12).sum())  # what is equal but for rounding is as far
    return Distance(distance=found, chance=float(np.quantile(drawn, 0.95)), p=(1 + as_far) / (1 + RESAMPLES))


def compare_runs(
    histograms: Mapping[str, tuple[Histogram, Histogram]], pairs: Sequence[Paired], against: str
) -> dict[str, Any]:
    """Return what the gate's manifest says of drift.

    histograms: this night's and the champion's by what they are of; pairs: the candidate beside the champion; against:
    what the champion is called. `moved` says in words what somebody should look at.
    """
    filled = {what: both for what, both in histograms.items() if all(sum(side.values()) for side in both)}
    slices = slices_of(pairs)
    level = NIGHTS / max(1, len(filled) + len(slices))
    rows = [_histogram_row(what, *both, level) for what, both in filled.items()]
    read = [_slice_row(*one, level) for one in slices]
    return {"against": against, "histograms": rows, "slices": read,
            "moved": [row["words"] for row in [*rows, *read] if row["moved"]]}  # fmt: skip


def slices_of(pairs: Sequence[Paired]) -> list[tuple[str, int, int, int, int]]:
    """Return for words of each length, each picture once: name, how many, read by both, by the first alone, the other.

    Lengths without a word are left out.
    """
    seen = dict[tuple[str, int], tuple[bool, bool]]()
    for pair in pairs:
        for picture, length, ours, theirs in zip(
            pair.pictures, pair.lengths, pair.candidate, pair.champion, strict=True
        ):
            seen[picture, length] = ours, theirs
    found = []
    for low, high in SLICES:
        counts = Counter(both for (_, length), both in seen.items() if low <= length <= high)
        name = f"words of {low} to {high} characters" if high < SLICES[-1][1] else f"words of {low} characters or more"
        if total := counts.total():
            found.append((name, total, counts[True, True], counts[True, False], counts[False, True]))
    return found


def _histogram_row(what: str, ours: Histogram, theirs: Histogram, level: float) -> dict[str, Any]:
    found, totals = distance_of(ours, theirs), (sum(ours.values()), sum(theirs.values()))
    sure, matters = found.p < level, found.distance >= MATTERS
    gaps = {
        name: ours.get(name, 0) / totals[0] - theirs.get(name, 0) / totals[1] for name in ours.keys() | theirs.keys()
    }
    most = sorted(gaps, key=lambda name: (-abs(gaps[name]), name))[:MOST_MOVED] if sure else []
    shares = [f"{name or 'others'} from {100 * theirs.get(name, 0) / totals[1]:.1f} to "
              f"{100 * ours.get(name, 0) / totals[0]:.1f} %" for name in most]  # fmt: skip
    told = f"{what}: {100 * found.distance:.1f} % are others, where chance alone makes up to {100 * found.chance:.1f} %"
    verdict = "as before" if not sure else "it has moved" if matters else "it has moved, too little to matter"
    words = f"{told}: {verdict}{': ' if shares else ''}{', '.join(shares)}"
    return {"what": what, **asdict(found), "verdict": verdict, "most": shares, "moved": sure and matters,
            "words": words}  # fmt: skip


def _slice_row(name: str, total: int, both: int, gained: int, lost: int, level: float) -> dict[str, Any]:
    p, difference = mcnemar_exact(gained, lost), (gained - lost) / total
    sure, matters = p < level, abs(difference) >= MATTERS
    before, after = (both + lost) / total, (both + gained) / total
    verdict = "as before" if not sure else "read better" if difference > 0 else "read worse"
    verdict += ", too little to matter" if sure and not matters else ""
    words = (f"{name}: {100 * after:.1f} % of {total:,} are read right, {100 * before:.1f} % by the champion: {gained} "
             f"gained, {lost} lost, McNemar p {p:.2g}: {verdict}")  # fmt: skip
    return {"what": name, "total": total, "accuracy": after, "champion_accuracy": before, "p": p, "verdict": verdict,
            "moved": sure and matters, "words": words}  # fmt: skip
