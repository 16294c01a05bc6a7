import math
from collections.abc import Callable

import numpy as np
import pytest

from wordmill.recipe.schedule import (
    batch_of_process,
    constant,
    make_plan,
    one_cycle,
    part_factor,
    piecewise,
    stepped,
    warmup_cosine,
)
from wordmill.recipe.sections import Train


def train(**changes: object) -> Train:
    values: dict[str, object] = {
        "framework": "pytorch", "epochs": 1, "global_batch": 8, "loss": "ctc", "optimizer": "adamw", "lr": 0.1,
        "warmup_epochs": 0.0, "weight_decay": 0.0, "amp": "O0", "seed": 1,
    }  # fmt: skip
    return Train(**(values | changes))  # type: ignore[arg-type]


def test_rates_are_those_of_the_published_schedule() -> None:
    # MindOCR with 1,000 steps an epoch, 1 epoch of warm-up and 9 of cosine, as read off its scheduler.
    rates = warmup_cosine(5e-4, 10_000, 1000)
    assert rates.dtype == np.float32
    assert rates.shape == (10_000,)
    assert rates[0] == 0.0
    assert rates[[1, 999, 1000, 5500]] == pytest.approx([5e-7, 4.995e-4, 5e-4, 2.5e-4], rel=1e-6)
    assert rates[-1] == pytest.approx(1.5e-11, rel=0.05)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert warmup_cosine(1.0, 4, 0) == pytest.approx([1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)])


def test_the_cosine_ends_above_its_lowest_rate() -> None:
    # Half the way down after 2 of 4 steps, at 0.2 + 0.8 (1 + cos 45 degrees) / 2 after 1
    rates = warmup_cosine(1.0, 6, 2, 0.2)
    assert rates == pytest.approx(
        [0.0, 0.5, 1.0, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2 + 0.4 * (1 - math.sqrt(0.5))]
    )


def test_a_constant_rate_may_warm_up_too() -> None:
    assert constant(0.5, 3, 0).tolist() == [0.5, 0.5, 0.5]
    assert constant(0.5, 5, 2).tolist() == [0.0, 0.25, 0.5, 0.5, 0.5]
    assert constant(0.5, 5, 2).dtype == np.float32


def test_a_stepped_rate_is_multiplied_after_so_many_steps_each() -> None:
    assert stepped(0.8, 7, 2, 3, 0.5) == pytest.approx([0.0, 0.4, 0.8, 0.4, 0.4, 0.4, 0.2])
    with pytest.raises(ValueError, match="train.step_epochs gives 0 steps, expected at least 1"):
        stepped(0.8, 7, 2, 0, 0.5)


def test_a_piecewise_rate_changes_where_it_is_told_to() -> None:
    assert piecewise(0.8, 7, 2, (3, 5), (0.2, 0.1)) == pytest.approx([0.0, 0.4, 0.8, 0.2, 0.2, 0.1, 0.1])
    for wrong in ((1,), (5, 3), (3, 3), (7,)):
        with pytest.raises(ValueError, match=r"train.piece_epochs gives steps .* from the end of the warm-up, 2, to 6"):
            piecewise(0.8, 7, 2, wrong, (0.1,) * len(wrong))


def test_one_cycle_rises_and_falls_by_half_cosines() -> None:
    # From 1 / 25 up to 1 in 3 steps, down to 0.2 in 4: the middle of the rise, the quarters of the fall.
    low, high = 0.2 + 0.4 * (1 - math.sqrt(0.5)), 0.2 + 0.4 * (1 + math.sqrt(0.5))
    assert one_cycle(1.0, 7, 3, 0.2) == pytest.approx([0.04, 0.52, 1.0, high, 0.6, low, 0.2])
    for wrong in (1, 7):
        with pytest.raises(ValueError, match=f"train.warmup_epochs gives {wrong} steps in which the rate rises, ex"):
            one_cycle(1.0, 7, wrong, 0.2)


def test_plan_makes_steps_of_the_schedules_epochs() -> None:
    piece = train(epochs=2, schedule="piecewise", piece_epochs=(0.5, 1.5), piece_lrs=(0.05, 0.01))
    assert make_plan(piece, samples=80, processes=1).rates == pytest.approx([0.1] * 5 + [0.05] * 10 + [0.01] * 5)
    step = train(epochs=2, schedule="step", step_epochs=0.5, step_factor=0.1)
    assert make_plan(step, samples=80, processes=1).rates[::5] == pytest.approx([0.1, 0.01, 0.001, 0.0001])
    cycle = make_plan(train(schedule="one_cycle", warmup_epochs=0.3, min_lr=0.001), samples=80, processes=1).rates
    assert cycle[[0, 2, 9]] == pytest.approx([0.004, 0.1, 0.001])


def test_a_part_has_a_rate_of_its_own_and_none_while_it_is_frozen() -> None:
    section = train(lr_factors={"backbone": 0.1}, freeze={"backbone": 2, "neck": 1})
    assert [part_factor(section, "backbone", step) for step in (1, 2, 3)] == [0.0, 0.0, 0.1]
    assert [part_factor(section, "neck", step) for step in (1, 2)] == [0.0, 1.0]
    assert part_factor(section, "head", 1) == 1.0


def test_plan_follows_the_recipes_schedule() -> None:
    plan = make_plan(train(schedule="constant", warmup_epochs=0.2), samples=80, processes=1)
    assert plan.rates == pytest.approx([0.0, 0.05] + [0.1] * 8)
    falling = make_plan(train(min_lr=0.05), samples=80, processes=1).rates
    assert falling[[0, 5]] == pytest.approx([0.1, 0.075])


@pytest.mark.parametrize("schedule", [warmup_cosine, constant])
@pytest.mark.parametrize("warmup_steps", [-1, 10, 11])
def test_a_warm_up_that_leaves_no_step_is_refused(schedule: Callable[..., object], warmup_steps: int) -> None:
    with pytest.raises(ValueError, match=r"train.warmup_epochs .* expected 0 to 9"):
        schedule(1.0, 10, warmup_steps)


def test_plan_drops_the_remainder_and_spreads_validation() -> None:
    plan = make_plan(train(epochs=2, validations_per_epoch=3, warmup_epochs=0.5), samples=87, processes=2)
    assert (plan.batch, plan.steps_per_epoch, plan.steps) == (4, 10, 20)
    assert plan.validate_after == {3, 6, 10, 13, 16, 20}
    assert plan.rates[:6] == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.1])


def test_a_flat_start_falls_from_one_to_nothing() -> None:
    plan = make_plan(train(flat_start_epochs=0.4), samples=80, processes=1)
    assert [plan.flat(step) for step in range(1, 7)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0])
    assert make_plan(train(), samples=80, processes=1).flat(1) == 0.0


def test_plan_refuses_more_validations_than_steps() -> None:
    with pytest.raises(ValueError, match=r"train.validations_per_epoch is 11, expected 1 to 10"):
        make_plan(train(validations_per_epoch=11), samples=80, processes=1)


def test_plan_refuses_fewer_samples_than_a_batch() -> None:
    with pytest.raises(ValueError, match="7"):
        make_plan(train(), samples=7, processes=1)


def test_global_batch_is_shared_equally_or_refused_with_the_nearest() -> None:
    assert batch_of_process(train(global_batch=128), 2) == 64
    with pytest.raises(
        ValueError, match=r"train.global_batch is 100, which 3 processes cannot share equally: .* is 99"
    ):
        batch_of_process(train(global_batch=100), 3)
    with pytest.raises(ValueError, match=r"which 8 processes .* is 8"):
        batch_of_process(train(global_batch=2), 8)
    with pytest.raises(ValueError, match="processes is 0"):
        batch_of_process(train(), 0)


def test_each_processs_share_divides_into_parts() -> None:
    assert batch_of_process(train(global_batch=24, accumulation=3), 2) == 12
    with pytest.raises(ValueError, match=r"global_batch is 26, which 2 processes .* in 3 parts each: .* is 24"):
        batch_of_process(train(global_batch=26, accumulation=3), 2)
    with pytest.raises(ValueError, match=r"train.accumulation is -1, expected 0, as memory asks for, or"):
        batch_of_process(train(accumulation=-1), 1)
