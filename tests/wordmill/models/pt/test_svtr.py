from pathlib import Path

import numpy as np
import pytest
import torch

from wordmill.models.architectures import skipped_share, window_mask
from wordmill.models.pt.model import build, count_steps
from wordmill.models.pt.svtr import Merge, MixingBlock, SvtrTiny
from wordmill.recipe.loading import load_recipe

SEEDS = torch.tensor([7, -8, 2**31 - 1, 0], dtype=torch.int32)


def test_it_has_the_size_of_mindocrs_svtrnet_for_its_pictures() -> None:
    """6,021,133 parameters in all, counted by MindOCR's package, less those of its STN_ON and its head."""
    stn = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 2 * 256 * 256) + 2 * (32 + 64 + 128 + 3 * 256)
    stn += (512 * 512 + 512 + 2 * 512) + (512 * 40 + 40)
    net = SvtrTiny(3, 32, 100)
    assert sum(weight.numel() for weight in net.parameters()) == 6_021_133 - stn - 37 * (192 + 1)


@pytest.mark.parametrize(("height", "width", "columns"), [(32, 100, 25), (48, 64, 16)])
def test_it_makes_a_column_of_four_pixels_of_its_own_size(height: int, width: int, columns: int) -> None:
    with torch.no_grad():
        assert SvtrTiny(1, height, width).eval()(torch.zeros(2, 1, height, width)).shape == (2, 192, 1, columns)


@pytest.mark.parametrize(("changes", "steps"), [((), 25), (("model.rectification=none",), 80)])
def test_wider_pictures_have_more_steps_where_stn_does_not_make_them_small(
    changes: tuple[str, ...], steps: int
) -> None:
    """As the guide says of long words."""
    path = Path(__file__).resolve().parents[4] / "pipelines" / "recipes" / "svtr_tiny.yaml"
    recipe = load_recipe(path, ("data.height=48", "data.width=320", "data.fit=pad_grey", *changes))
    assert count_steps(build(recipe.model, recipe.data, 37), recipe.data) == steps


def test_local_mixing_sees_seven_rows_and_eleven_columns() -> None:
    seen = window_mask(8, 25)[25 * 4 + 12].reshape(8, 25) == 0
    assert np.array_equal(np.flatnonzero(seen.any(1)), np.arange(1, 8))
    assert np.array_equal(np.flatnonzero(seen.any(0)), np.arange(7, 18))
    assert seen.sum() == 7 * 11
    assert (window_mask(8, 25)[0] == 0).sum() == 4 * 6  # in the corner


def test_a_local_block_passes_nothing_from_beyond_its_window() -> None:
    torch.manual_seed(1)
    block, x = MixingBlock(1, 8, 2, (1, 20)).eval(), torch.randn(1, 20, 8)
    changed = x.clone()
    changed[0, 12] = torch.randn(8)
    with torch.no_grad():
        moved = (block(changed) - block(x)).abs().amax((0, 2)) > 1e-6
    assert torch.equal(torch.nonzero(moved).flatten(), torch.arange(7, 18))


def test_later_blocks_are_skipped_by_more_samples() -> None:
    assert [round(skipped_share(block), 4) for block in (0, 1, 11)] == [0.0, 0.0091, 0.1]


def test_what_is_skipped_goes_by_the_samples_seed_and_only_while_training() -> None:
    torch.manual_seed(1)
    block, x = MixingBlock(11, 8, 2, (1, 5)), torch.randn(1, 5, 8).expand(500, 5, 8)
    seeds = torch.arange(500, dtype=torch.int32) * 7919
    with torch.no_grad():
        found = block.train()(x, seeds)
        whole = (found - block.eval()(x)).abs().amax((1, 2)) > 1e-6
        assert torch.equal(block.train()(x, seeds), found)
        assert torch.equal(block.eval()(x, seeds), block(x))
    kept = [(found[i] - x[i]).abs().max() > 1e-6 for i in range(500)]
    assert all(whole)  # what is kept is divided by the share that is
    assert 0 < 500 - sum(kept) < 15  # of both halves: 1 % of them


def test_merging_halves_the_rows() -> None:
    with torch.no_grad():
        assert Merge(8, 6, (4, 5))(torch.zeros(2, 20, 8)).shape == (2, 10, 6)


def test_dropout_and_skips_differ_from_sample_to_sample() -> None:
    torch.manual_seed(1)
    net, x = SvtrTiny(1, 32, 16).train(), torch.randn(1, 1, 32, 16).expand(4, 1, 32, 16)
    with torch.no_grad():
        found = net(x, SEEDS)
    assert not any(torch.equal(found[0], found[i]) for i in (1, 2, 3))
    assert 0.02 < (found == 0).float().mean() < 0.3
