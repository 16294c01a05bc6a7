"""How a recogniser's error falls with the number of words that it learns from, and what twice as many would give.

The error on held-out words, when a part x of all is learnt from (x = 1: all of them), is taken to be

    e(x) = e(1) (s + (1 - s) ((x + h) / (1 + h))^-b)

a power law with a floor, the share s of the error at all words (Cortes et al. 1994, Learning curves: asymptotic values
and rate of convergence), and with a head start, for the weights that training starts from are worth h times all words
(Hernandez et al. 2021, arXiv 2102.01293). Four points do not tell such laws apart: of each floor and head start e(1)
and b are fitted by likelihood, the gain is their mean by likelihood, and its interval holds those of all laws that the
counts do not rule out, the profile likelihood's (Venzon and Moolgavkar 1988).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FLOORS, HEAD_STARTS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), (0.0, 0.1, 0.3, 1.0)
LEAST_POWER, MOST_POWER = -1.0, 4.0  # the plain power law's may be below 0: more words may do harm
CHI_SQUARE_95 = 3.841458820694124  # of one degree of freedom
BY_CHANCE = 0.01  # standard deviation of the error between trainings that differ by chance alone
HIGHEST = 0.999  # error: a law may ask for more where few words are learnt from
ROUNDS = 30  # of the fit
RIDGE = 1e-9  # keeps a matrix invertible that the points say nothing of

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The laws fitted to each of N lists of counts, (N, L): e(1), b and the likelihood over the best one's, 0..1."""

    error: Floats
    power: Floats
    likelihood: Floats
    gain: Floats  # (N,), of twice as many words: what the error falls by, a share
    low: Floats  # (N,), of its 95 % interval
    high: Floats

    def error_at(self, x: float) -> Floats:
        """Return the error when a part x of all words is learnt from, (N,): the laws' mean by their likelihood."""
        errors = np.minimum(self.error * _ratio(self.power, x)[0], HIGHEST)
        return _mean(errors, self.likelihood)


def fit_curve(parts: tuple[float, ...], wrong: Counts, total: int) -> Fitted:
    """Fit the laws to how many of `total` held-out words are read wrong, (N, P), by the parts of words learnt from.

    Counts are taken as independent, though the words are the same: what these share cancels out of the gain.
    """
    # Half a word more of either kind: no error is 0 or 1, whose logarithms are none.
    k, n = np.asarray(wrong, np.float64)[:, np.newaxis] + 0.5, total + 1.0
    mean = k.mean(-1, keepdims=True) / n
    spread = 1 + BY_CHANCE**2 * n / (mean * (1 - mean))  # how many times a binomial's variance the points have
    error, power, likelihood, information = _fit(np.array(parts), k, n, spread)
    gain, deviation = _gain(error, power, information)
    room = CHI_SQUARE_95 - 2 * (likelihood.max(-1, keepdims=True) - likelihood)
    half = np.sqrt(np.maximum(room, 0)) * deviation
    least = np.where(PLAIN, -1.0, 0.0)
    low = np.where(room >= 0, np.maximum(gain - half, least), np.inf).min(-1)
    high = np.where(room >= 0, gain + half, -np.inf).max(-1)
    weights = np.exp(likelihood - likelihood.max(-1, keepdims=True))
    return Fitted(error=error, power=power, likelihood=weights, gain=_mean(gain, weights), low=low,
                  high=np.minimum(high, _mean(error, weights)))  # fmt: skip


LAWS = np.array([(floor, start) for floor in FLOORS for start in HEAD_STARTS])  # (L, 2)
PLAIN = (LAWS == 0).all(1)  # (L,)


def _mean(values: Floats, weights: Floats) -> Floats:
    result: Floats = (values * weights).sum(-1) / weights.sum(-1)
    return result


def _ratio(power: Floats, x: float) -> tuple[Floats, Floats]:
    """Return e(x) / e(1) of each law and its derivative by b, both (N, L)."""
    floor, start = LAWS.T
    distance = np.log((x + start) / (1 + start))
    falling = (1 - floor) * np.exp(-power * distance)
    return floor + falling, -falling * distance


def _fit(parts: Floats, k: Floats, n: float, spread: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return e(1), b and the log likelihood of each law, (N, L), and the information on log e(1) and b, (N, L, 2, 2).

    Fisher scoring, damped as by Levenberg and Marquardt: a step that is none better is tried again, shorter.
    """
    shape = (len(k), len(LAWS))
    level, power = np.broadcast_to(np.log(k[..., -1] / n), shape).copy(), np.full(shape, 0.3)
    least = np.where(PLAIN, LEAST_POWER, 0.0)
    damping = np.full(shape, 1e-3)
    likelihood, score, information = _slopes(level, power, parts, k, n, spread)
    for _ in range(ROUNDS):
        damped = information * (1 + damping[..., np.newaxis, np.newaxis] * np.eye(2)) + RIDGE * np.eye(2)
        step = np.clip(np.linalg.solve(damped, score[..., np.newaxis])[..., 0], -1, 1)
        tried = np.minimum(level + step[..., 0], np.log(HIGHEST)), np.clip(power + step[..., 1], least, MOST_POWER)
        found = _slopes(*tried, parts, k, n, spread)
        better = found[0] >= likelihood
        level, power = np.where(better, tried[0], level), np.where(better, tried[1], power)
        damping = np.where(better, damping / 5, damping * 5)
        likelihood = np.where(better, found[0], likelihood)
        score = np.where(better[..., np.newaxis], found[1], score)
        information = np.where(better[..., np.newaxis, np.newaxis], found[2], information)
    return np.exp(level), power, likelihood, information


def _slopes(
    level: Floats, power: Floats, parts: Floats, k: Floats, n: float, spread: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the log likelihood (N, L), its derivatives by log e(1) and b (N, L, 2), and their information."""
    ratios, slopes = (np.stack(both, -1) for both in zip(*(_ratio(power, x) for x in parts.tolist()), strict=True))
    wanted = np.exp(level)[..., np.newaxis] * ratios
    errors, free = np.minimum(wanted, HIGHEST), (wanted < HIGHEST).astype(np.float64)
    jacobian = np.stack([free, free * slopes / ratios], -1)  # of log e, (N, L, P, 2)
    odds = 1 / (1 - errors) / spread
    likelihood = ((k * np.log(errors) + (n - k) * np.log1p(-errors)) / spread).sum(-1)
    score = (((k - n * errors) * odds)[..., np.newaxis] * jacobian).sum(-2)
    information = np.einsum("nlp,nlpi,nlpj->nlij", n * errors * odds, jacobian, jacobian)
    return likelihood, score, information


def _gain(error: Floats, power: Floats, information: Floats) -> tuple[Floats, Floats]:
    """Return what the error falls by with twice as many words, and its standard error, both (N, L)."""
    ratio, slope = _ratio(power, 2.0)
    gain = error * (1 - ratio)
    gradient = np.stack([gain, -error * slope], -1)
    solved = np.linalg.solve(information + RIDGE * np.eye(2), gradient[..., np.newaxis])[..., 0]
    return gain, np.sqrt(np.maximum((gradient * solved).sum(-1), 0))
