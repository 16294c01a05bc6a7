import numpy as np
import pytest
import torch

from tests.wordmill.models.ms import ms  # isort: skip  # before anything imports MindSpore
from wordmill.models.ms import svtr as ms_svtr
from wordmill.models.ms import weights as ms_weights
from wordmill.models.pt import svtr as pt_svtr
from wordmill.models.pt import weights as pt_weights

SEEDS = np.array([7, -8, 2**31 - 1, 0], np.int32)
PARTS = {  # of both modules, and patches in and channels
    "local": (lambda m: m.MixingBlock(3, 8, 2, (4, 5)), 20, 8),
    "global": (lambda m: m.MixingBlock(11, 8, 2, (2, 5)), 10, 8),
    "merging": (lambda m: m.Merge(8, 6, (4, 5)), 20, 8),
}


def test_it_has_the_size_of_its_twin_and_as_many_columns_as_it_says() -> None:
    net = ms_svtr.SvtrTiny(1, 32, 16)
    twin = pt_svtr.SvtrTiny(1, 32, 16)
    assert sum(p.size for p in net.trainable_params()) == sum(p.numel() for p in twin.parameters())
    assert net.columns(16) == 4


@pytest.mark.parametrize("name", PARTS)
def test_blocks_skip_and_mix_as_their_twins(name: str) -> None:
    build, patches, channels = PARTS[name]
    torch.manual_seed(4)
    one, other = build(pt_svtr).train(), build(ms_svtr).set_train()
    ms_weights.load_weights(other, pt_weights.dump(one), "mindspore")
    x = np.random.default_rng(5).normal(size=(4, patches, channels)).astype(np.float32)
    given = () if name == "merging" else (SEEDS,)
    ms.set_context(mode=ms.PYNATIVE_MODE)  # which compiles nothing
    try:
        found = other(ms.Tensor(x), *map(ms.Tensor, given)).asnumpy()
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    expected = one(torch.from_numpy(x), *map(torch.from_numpy, given)).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-5
