"""What the gate decides by chance: simulated nights of candidates whose true difference to the champion is known.

python -m benchmarks.gate [--nights N] [--json]

The ten benchmarks have their real sizes and overlaps. Of each picture the candidate alone is right with probability
(d + t) / 2, the champion alone with (d - t) / 2: d is the share of discordant words, t the true difference. A night's
bootstrap has 10,000 resamples in the gate; here its quantiles come from its exact first four cumulants (Cornish and
Fisher 1938, Revue de l'Institut International de Statistique 5, 307-320), and how far that is off is a row, too.
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.data_rows import print_rows
from components.gate.compare import BOUND, has_fallen
from components.gate.sampling import Stratum, bootstrap_means, expected_error, margin_of
from wordmill.recipe.arguments import from_one
from wordmill.recipe.sections import Gate
from wordmill.text.metrics import NORMAL_975

Row = dict[str, str | float | bool | None]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SIZES = {"IC03_860": 860, "IC03_867": 867, "IC13_857": 857, "IC13_1015": 1015, "IC15_1811": 1811, "IC15_2077": 2077,
         "IIIT5k_3000": 3000, "SVT": 647, "SVTP": 645, "CUTE80": 288}  # fmt: skip
# Of each benchmark of a pair the pictures that stand in both are the smaller one's.
WITHIN = {"IC03_860": "IC03_867", "IC13_857": "IC13_1015", "IC15_1811": "IC15_2077"}
DISCORDANT = (0.04, 0.08, 0.12)
DIFFERENCES = (-0.005, 0.0, 0.003, 0.005)
NIGHTS, CHECKED = 100_000, 100
NORMAL_95, NORMAL_90 = 1.6448536269514722, 1.2815515655446004  # the standard normal distribution's points
PLAIN = Gate(floor=0.0, floors={})


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """Pictures that stand in the same benchmarks: how many, (S,), and in which, (S, B) of 0 and 1."""

    pictures: Ints
    standing: Ints

    @property
    def weights(self) -> Floats:
        """What a picture adds to the mean over the benchmarks, (S,)."""
        weights: Floats = self.standing @ (1 / (self.pictures @ self.standing)) / self.standing.shape[1]
        return weights

    def strata(self, gained: Ints, lost: Ints) -> list[Stratum]:
        """Return one night as the gate has it; gained, lost: (S,)."""
        return [Stratum(weight=float(w), values=np.array([w, -w, 0.0]), counts=np.array([up, down, n - up - down]))
                for w, n, up, down in zip(self.weights, self.pictures, gained, lost, strict=True)]  # fmt: skip


def ten_benchmarks() -> Benchmarks:
    """Return the ten benchmarks of scene text."""
    names, groups = list(SIZES), list[tuple[int, tuple[str, ...]]]()
    for name, size in SIZES.items():
        inner = [small for small, large in WITHIN.items() if large == name]
        groups.append(
            (size - sum(SIZES[small] for small in inner), (name, *([WITHIN[name]] if name in WITHIN else [])))
        )
    standing = np.array([[int(name in where) for name in names] for _, where in groups])
    return Benchmarks(pictures=np.array([count for count, _ in groups]), standing=standing)


def draw(sets: Benchmarks, discordant: float, difference: float, nights: int) -> tuple[Ints, Ints]:
    """Return of each night and group of pictures how many words are gained and lost, (nights, S) each."""
    generator = np.random.Generator(np.random.Philox([round(1e4 * discordant), round(1e4 * (1 + difference))]))
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    drawn = generator.multinomial(np.broadcast_to(sets.pictures, (nights, len(sets.pictures))), shares)
    return drawn[..., 0], drawn[..., 1]


def quantiles(sets: Benchmarks, gained: Ints, lost: Ints, point: float) -> Floats:
    """Return a quantile of each night's bootstrap, (nights,), given the normal distribution's `point` of it."""
    weights, pictures = sets.weights, sets.pictures
    odd, even = (gained - lost) / pictures, (gained + lost) / pictures  # of one drawn picture
    m1, m2, m3, m4 = odd * weights, even * weights**2, odd * weights**3, even * weights**4
    mean = (pictures * m1).sum(1)
    spread = np.sqrt((pictures * (m2 - m1**2)).sum(1))
    skew = (pictures * (m3 - 3 * m1 * m2 + 2 * m1**3)).sum(1) / spread**3
    tails = (pictures * (m4 - 4 * m1 * m3 - 3 * m2**2 + 12 * m1**2 * m2 - 6 * m1**4)).sum(1) / spread**4
    z = point
    shape = z + (z**2 - 1) * skew / 6 + (z**3 - 3 * z) * tails / 24 - (2 * z**3 - 5 * z) * skew**2 / 36
    result: Floats = mean + spread * shape
    return result


def least_falls(most: int, benchmarks: int) -> Ints:
    """Return for so many discordant words, 0..most, how many of them must be lost to be no accident, (most + 1,)."""
    least, found = 0, list[int]()
    for discordant in range(most + 1):
        while least <= discordant and not has_fallen(discordant - least, least, benchmarks):
            least += 1
        found.append(least)
    return np.array(found)


def promoted(sets: Benchmarks, gained: Ints, lost: Ints) -> npt.NDArray[np.bool_]:
    """Return which nights the gate promotes, (nights,), floors apart."""
    margin = margin_of(sets.strata(gained[0], lost[0]), PLAIN)
    up, down = gained @ sets.standing, lost @ sets.standing
    least = least_falls(int((up + down).max()), sets.standing.shape[1])
    result: npt.NDArray[np.bool_] = (quantiles(sets, gained, lost, -NORMAL_95) > -margin) & (
        down < least[up + down]
    ).all(1)
    return result


def rows_of(sets: Benchmarks, discordant: float, difference: float, nights: int) -> list[Row]:
    """Simulate candidates of one true difference."""
    gained, lost = draw(sets, discordant, difference, nights)
    low, high = (quantiles(sets, gained, lost, point) for point in (-NORMAL_975, NORMAL_975))
    covered = 100 * float(((low <= difference) & (difference <= high)).mean())
    chosen = 100 * float(promoted(sets, gained, lost).mean())
    what = f"{100 * abs(difference):.1f} points {'better' if difference > 0 else 'worse'}" if difference else "equal"
    where = f"{100 * discordant:.0f} % discordant, {what}"
    worse = difference < 0
    return [
        row(f"{where}: coverage of the 95 % interval", covered, "%", 95.0, 94.5 <= covered <= 95.5),
        row(f"{where}: promoted", chosen, "%", 5.0, chosen <= 5) if worse
        else row(f"{where}: refused", 100 - chosen, "%"),
    ]  # fmt: skip


def row(name: str, value: float, unit: str, goal: float | None = None, met: bool | None = None) -> Row:
    """Return a row of the table."""
    return {"name": name, "value": round(value, 3), "unit": unit, "peer": None, "ratio": None, "goal": goal, "met": met}


def sizes(sets: Benchmarks, discordant: float) -> list[Row]:
    """Return the error, and how many times as many words would refuse one in ten of equal candidates."""
    strata = sets.strata(0 * sets.pictures, 0 * sets.pictures)
    error, margin = expected_error(strata) * math.sqrt(discordant / 0.08), margin_of(strata, PLAIN)
    times = ((NORMAL_95 + NORMAL_90) * error / margin) ** 2
    where = f"{100 * discordant:.0f} % discordant"
    return [row(f"{where}: standard error", 100 * error, "points"),
            row(f"{where}: words for 10 % of equal ones refused", times, "times as many")]  # fmt: skip


def check(sets: Benchmarks, discordant: float) -> Row:
    """Return how far the simulation's lower bound is off the gate's own, on average over some nights."""
    gained, lost = draw(sets, discordant, 0.0, CHECKED)
    exact = [np.quantile(bootstrap_means(sets.strata(*night)), BOUND) for night in zip(gained, lost, strict=True)]
    gaps = np.abs(quantiles(sets, gained, lost, -NORMAL_95) - exact)
    name = f"{100 * discordant:.0f} % discordant: the bound here against the gate's own, mean gap"
    return row(name, 100 * float(gaps.mean()), "points", 0.01, bool(gaps.mean() <= 1e-4))


def main() -> None:
    """Print a table, or rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--nights", type=from_one, default=NIGHTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sets = ten_benchmarks()
    rows = [row("margin", 100 * margin_of(sets.strata(0 * sets.pictures, 0 * sets.pictures), PLAIN), "points")]
    for discordant in DISCORDANT:
        rows += [*sizes(sets, discordant), check(sets, discordant)]
        rows += [one for difference in DIFFERENCES for one in rows_of(sets, discordant, difference, options.nights)]
    print_rows(rows, options.json)


if __name__ == "__main__":
    main()
