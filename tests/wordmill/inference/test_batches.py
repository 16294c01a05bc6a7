import numpy as np

from wordmill.inference.batches import in_batches


def test_the_last_batch_is_filled_up_and_what_fills_it_is_cut_off() -> None:
    images = np.arange(5, dtype=np.float32)[:, None]
    taken: list[list[float]] = []

    def call(batch: np.ndarray) -> list[np.ndarray]:
        taken.append(batch[:, 0].tolist())
        return [batch * 10, batch[:, 0] + 1]

    tens, sums = in_batches(call, 3, images)
    assert taken == [[0, 1, 2], [3, 4, 3]]
    assert (tens.tolist(), sums.tolist()) == ([[0], [10], [20], [30], [40]], [1, 2, 3, 4, 5])
