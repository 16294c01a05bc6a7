"""What Muon (Jordan et al. 2024, github.com/KellerJordan/Muon) is in both frameworks.

Its updates have the size of AdamW's, so that rates and decay are AdamW's too (Liu et al. 2025, arXiv 2502.16982).
"""

MOMENTUM = 0.95
SIZE = 0.2  # of an update's entries, as a root of their mean square
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration that sets singular values to about 1
ITERATIONS = 5
NORM_EPSILON = 1e-7


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether Muon updates a weight, by its canonical name: it mixes channels. AdamW updates all others."""
    return len(shape) > 1 and shape[1] > 1 and "embedding" not in name


def size_of(rows: int, columns: int) -> float:
    """Return what a matrix with singular values of 1 is multiplied by."""
    return float(SIZE * max(rows, columns) ** 0.5)
