"""The temperature at which a recogniser's confidences tell how often its readings are right."""

import numpy as np
import numpy.typing as npt

FEWEST = 10  # readings that are right, and that are wrong: of fewer nothing is learnt
LOWEST, HIGHEST = 0.05, 20.0
HALVINGS = 50  # of the interval of its logarithm
BINS = 20  # of a histogram of confidences
LEAST_DOUBT = 1e-6  # in float32 a probability may be 1


def fit_temperature(confidences: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> float:
    """Return the temperature for confidences (N,) of temperature 1, 0..1, of readings that are right or not (N,).

    It makes these outcomes the likeliest (Guo et al. 2017, 4.2). Empty readings, whose confidence is 0 at any
    temperature, have no part in it; where few of the others are right, or few wrong, it is 1.
    """
    written = confidences > 0
    hits = right[written]
    if min(hits.sum(), (~hits).sum()) < FEWEST:
        return 1.0
    scores = np.minimum(np.log(confidences[written], dtype=np.float64), -LEAST_DOUBT)
    low, high = np.log(LOWEST), np.log(HIGHEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # Where a lower power is the likelier one, a higher temperature is.
        low, high = (middle, high) if _slope(scores, hits, float(np.exp(-middle))) > 0 else (low, middle)
    return round(float(np.exp((low + high) / 2)), 4)


def _slope(scores: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_], power: float) -> float:
    """Return the derivative by the power b of the cross entropy of exp(b * score) and outcomes (N,), convex in b."""
    raised = np.expm1(np.minimum(-power * scores[~hits], 700.0))
    return float((scores[~hits] / raised).sum() - scores[hits].sum())


def confidence_histogram(confidences: npt.NDArray[np.float32]) -> dict[str, int]:
    """Return how many of the confidences (N,), 0..1, lie in each of 20 equal bins, by the bin's lower limit."""
    sure = np.nan_to_num(confidences)  # of logits that are no numbers
    counts = np.bincount(np.minimum((sure * BINS).astype(np.int64), BINS - 1), minlength=BINS).tolist()
    return {f"{number / BINS:.2f}": count for number, count in enumerate(counts) if count}
