"""What optimisers, the moving average and the loss scale go by in both frameworks; recipes hold the rest."""

EPSILON = 1e-8  # of Adam
RHO, ADADELTA_EPSILON = 0.9, 1e-6
AVERAGE_WARMUP = 2000.0  # steps; MindOCR's moving average starts short and grows longer
GROWTH_INTERVAL = 1000  # finite steps in a row after which a dynamic loss scale is doubled, as MindOCR's

# Muon (Jordan et al. 2024, github.com/KellerJordan/Muon), its updates as large as AdamW's, so that rates and decay are
# AdamW's too (Liu et al. 2025, arXiv 2502.16982).
MUON_MOMENTUM = 0.95
MUON_SIZE = 0.2  # of an update's entries, as a root of their mean square
MUON_EPSILON = 1e-7
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of the iteration that sets singular values to about 1
ITERATIONS = 3  # of Jordan's five: after as many words a little behind, after as much processor time ahead


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether Muon updates a weight, by its canonical name: it mixes channels. AdamW updates all others."""
    return len(shape) > 1 and shape[1] > 1 and "embedding" not in name


def muon_size(rows: int, columns: int) -> float:
    """Return what a matrix with singular values of 1 is multiplied by."""
    return float(MUON_SIZE * max(rows, columns) ** 0.5)
