import pytest

from benchmarks.memory import rows_of
from wordmill.recipe.memory import NEED

MIB = 2**20


def test_two_sizes_tell_a_pictures_memory_from_the_processs() -> None:
    # 16 pictures more take 16 x 3,200 pixels x 2 KiB = 100 MiB: 8 take 50 of the 450.
    process, pixel = rows_of("crnn_vgg7", "pytorch", {24: 550 * MIB, 8: 450 * MIB})
    assert (process["value"], pixel["value"]) == (pytest.approx(400), pytest.approx(2))
    assert [process["goal"], pixel["goal"]] == list(NEED["pytorch"]["crnn/vgg7"])
    assert process["met"] is (NEED["pytorch"]["crnn/vgg7"][0] >= 400)
