import numpy as np
import pytest

from wordmill.models.tps import columns_of, control_points, pixel_matrix, resize_matrix


def pixels(height: int, width: int) -> np.ndarray:
    """Return x and y from -1 to 1 of the pixels, row by row."""
    return np.array(
        [(-1 + 2 * x / (width - 1), -1 + 2 * y / (height - 1)) for y in range(height) for x in range(width)]
    )


def test_the_control_points_lie_on_the_edges_from_left_to_right() -> None:
    points = control_points()
    assert points.shape == (20, 2)
    assert points[[0, 9, 10, 19]].tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert np.allclose(np.diff(points[:10, 0]), 2 / 9)


def test_control_points_in_their_place_leave_each_pixel_in_its_own() -> None:
    assert np.abs(pixel_matrix(32, 100) @ control_points() - pixels(32, 100)).max() < 1e-5


def test_an_affine_map_of_the_control_points_is_that_of_the_pixels() -> None:
    linear, shift = np.array([[0.8, 0.3], [-0.2, 0.5]]), np.array([0.1, -0.3])
    found = pixel_matrix(7, 11) @ (control_points() @ linear + shift)
    assert np.abs(found - (pixels(7, 11) @ linear + shift)).max() < 1e-5


def test_the_spline_goes_through_its_control_points() -> None:
    """With 10 columns the first and the last row of pixels are the control points themselves."""
    places = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    found = (pixel_matrix(5, 10) @ places).reshape(5, 10, 2)
    assert np.abs(found[[0, 4]].reshape(20, 2) - places).max() < 1e-4


def test_between_them_it_is_the_spline_of_the_definition() -> None:
    """Solved for the weights of a + b x + c y + sum(w r^2 ln r^2), with the side conditions on w."""
    points, places = control_points(), np.random.default_rng(1).uniform(-1, 1, (20, 2))
    system, values = np.zeros((23, 23)), np.zeros((23, 2))
    values[:20] = places
    for i, (x, y) in enumerate(points):
        system[i, 20:] = system[20:, i] = 1, x, y
        for j, other in enumerate(points):
            square = (x - other[0]) ** 2 + (y - other[1]) ** 2
            system[i, j] = square * np.log(square) if square else 0.0
    weights = np.linalg.solve(system, values)
    for (x, y), found in zip(pixels(4, 7), pixel_matrix(4, 7) @ places, strict=True):
        squares = ((points - (x, y)) ** 2).sum(axis=1)
        bends = [square * np.log(square) if square else 0.0 for square in squares]
        assert found.tolist() == pytest.approx((np.array([*bends, 1, x, y]) @ weights).tolist(), abs=1e-4)


def test_columns_of_a_straightened_picture_lie_where_the_mean_of_their_pixels_does() -> None:
    points = np.stack([control_points() * (0.5, 1), control_points()]).astype(np.float32)
    points[0, :, 0] += 0.25
    points[1, :10, 0] += 1.5  # the upper edge alone, to the right: half of it in the mean, out of the picture at last
    halved, leaning = columns_of(points, 3, 5)
    # x of -1, -0.5 .. 1 becomes -0.25, 0 .. 0.75, and the middles of 5 pixels lie at 0.1, 0.3 .. 0.9 for -1 to 1.
    assert halved == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8], abs=1e-5)
    assert leaning == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0], abs=1e-5)


def test_control_points_may_lie_in_from_the_edges_and_rows_still_add_up() -> None:
    points = control_points(0.05)
    assert points[0].tolist() == pytest.approx([-0.9, -0.9])
    assert points[19].tolist() == pytest.approx([0.9, 0.9])
    matrix = pixel_matrix(4, 7, 0.05)
    assert np.abs(matrix.sum(1) - 1).max() < 1e-4
    assert np.abs(matrix @ points - pixels(4, 7)).max() < 1e-4


def test_a_line_is_resized_between_the_pixels_that_lie_nearest() -> None:
    """To half: the mean of two each; to a quarter: that of the middle two of four; to twice: quarters."""
    assert resize_matrix(4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert resize_matrix(8, 2).tolist() == [[0, 0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.5, 0.5, 0]]
    assert resize_matrix(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
