"""What is refused before anything runs."""

import pytest

from pipelines.building import build_pipeline, load_inputs
from pipelines.cli import command_line


def build(*words: str) -> None:
    build_pipeline(command_line().parse_args(["compile", *words]))


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        # 4,096 samples are 64 steps of 64.
        (("data.limit=4096", "train.warmup_epochs=1"), "warmup_epochs gives 64 warm-up steps, expected 0 to 63"),
        (("data.limit=4096", "train.validations_per_epoch=65"), "validations_per_epoch is 65, expected 1 to 64"),
        (("data.limit=63",), "train.global_batch is 64, expected at most 63"),
        (("train.global_batch=63",), "train.global_batch is 63, which 2 processes cannot share"),
        (("data.val=[rendered_train]",), "'rendered_train' is in data.train and in data.val"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused(changes: tuple[str, ...], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        build("quickstart", *(f"--set={change}" for change in changes))


def test_a_warm_up_that_leaves_a_step_is_taken() -> None:
    build("quickstart", "--set=data.limit=4096", "--set=train.warmup_epochs=0.98")  # 63 of 64 steps


def test_only_rendered_sets_are_streamed() -> None:
    with pytest.raises(
        ValueError, match=r"data.streamed: data set 'mj_train' is from manual:.*, expected one from synth"
    ):
        build("crnn_npu", "--set=data.streamed=true")


def test_limits_hold_for_each_set() -> None:
    build("crnn_mv3", "--set=data.limit=256", "--set=train.validations_per_epoch=1")  # 4 sets: one batch of 1,024


@pytest.mark.parametrize(
    ("named", "measured"), [("SVT", ("SVT",)), ("+SVT,SVTP", ("rendered_easy", "rendered_hard", "SVT", "SVTP"))]
)
def test_benchmarks_stand_in_the_place_of_the_recipes_own_or_beside_them(named: str, measured: tuple[str, ...]) -> None:
    recipe, _ = load_inputs(command_line().parse_args(["compile", "quickstart", f"--benchmarks={named}"]), processes=1)
    assert recipe.benchmarks == measured
    assert recipe.gate.benchmarks == ("rendered_easy", "rendered_hard")
