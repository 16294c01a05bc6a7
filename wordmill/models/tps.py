"""The thin-plate spline that straightens a word (Bookstein 1989), as a constant matrix.

RARE (Shi et al. 2016, arXiv 1603.03915, 3.1) sets control points along both edges of a straight picture and lets a
network say where in the crooked one they lie. The spline is linear in these places, so one matrix turns them into the
place of every pixel. Coordinates (x, y) run from -1, the centre of the first pixel, to 1, that of the last.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

CONTROL_POINTS = 20  # the paper's number: one half on the upper edge, one on the lower


def control_points(margin: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the control points (20, 2) of a straight picture: the upper edge from left to right, then the lower.

    They lie `margin` in from the edges, a share of the picture's sides.
    """
    edge = 1.0 - 2.0 * margin
    x = np.linspace(-edge, edge, CONTROL_POINTS // 2)
    return np.concatenate([np.stack([x, np.full_like(x, y)], axis=1) for y in (-edge, edge)])


def pixel_matrix(height: int, width: int, margin: float = 0.0) -> npt.NDArray[np.float32]:
    """Return the matrix (height * width, 20) that turns places (20, 2) of the control points into those of pixels.

    Its rows add up to 1, so that it does so in any coordinates.
    """
    points = control_points(margin)
    affine = np.concatenate([np.ones((CONTROL_POINTS, 1)), points], axis=1)
    # The spline goes through the control points, and its bends add up to nothing that an affine map could do.
    system = np.block([[_bend(points, points), affine], [affine.T, np.zeros((3, 3))]])
    y, x = np.meshgrid(np.linspace(-1.0, 1.0, height), np.linspace(-1.0, 1.0, width), indexing="ij")
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    terms = np.concatenate([_bend(pixels, points), np.ones((len(pixels), 1)), pixels], axis=1)
    return np.asarray(terms @ np.linalg.inv(system)[:, :CONTROL_POINTS], dtype=np.float32)


def columns_of(points: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Return where the columns of straightened pictures lie in the crooked ones, (N, width) in shares of their width.

    points (N, 20, 2) are where the control points lie; of a column it is the mean of its pixels.
    """
    x = points[:, :, 0] @ _column_matrix(height, width).T
    return np.asarray(np.clip(((x + 1) / 2 * (width - 1) + 0.5) / width, 0.0, 1.0), np.float32)


@cache
def _column_matrix(height: int, width: int) -> npt.NDArray[np.float32]:
    """Return the matrix (width, 20) that turns the control points' x into the mean x of each column's pixels."""
    return np.asarray(pixel_matrix(height, width).reshape(height, width, CONTROL_POINTS).mean(axis=0))


def resize_matrix(before: int, after: int) -> npt.NDArray[np.float32]:
    """Return the matrix (after, before) that resizes a line of pixels bilinearly, without smoothing it first.

    As frameworks do with half-pixel centres: pixel i of the new line lies at (i + 1/2) * before / after - 1/2.
    """
    places = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0.0, before - 1.0)
    return np.asarray(np.clip(1.0 - np.abs(places[:, np.newaxis] - np.arange(before)), 0.0, None), dtype=np.float32)


def _bend(places: npt.NDArray[np.float64], points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the spline's kernel r^2 ln r^2 of the distances r between places (P, 2) and points (F, 2), (P, F)."""
    squares = ((places[:, np.newaxis] - points) ** 2).sum(axis=2)
    return np.asarray(squares * np.log(np.where(squares > 0, squares, 1.0)))
