import dataclasses
from pathlib import Path
from typing import Any

import pytest

from wordmill.recipe.loading import load_recipe

RECIPES = Path(__file__).resolve().parents[3] / "pipelines" / "recipes"


def refusal(recipe: str, **keys: Any) -> str:
    overrides = tuple(f"export.{key}={value}" for key, value in keys.items())
    with pytest.raises(ValueError, match="export") as raised:
        load_recipe(RECIPES / f"{recipe}.yaml", overrides)
    return str(raised.value).removeprefix(f"{recipe}.yaml: export")


@pytest.mark.parametrize(
    ("recipe", "keys", "told"),
    [
        ("quickstart", {"optional": "[onnx]"}, ": 'onnx' is named twice: expected once"),
        ("quickstart", {"opset": 10}, ".opset: found 10, expected 11 to 17"),
        ("quickstart", {"opset": 18}, ".opset: found 18, expected 11 to 17"),
        ("rare_r34_tps", {"opset": 15}, ".opset: found 15, expected at least 16: ONNX has GridSample"),
        ("quickstart", {"formats": "[onnx_int8]", "opset": 12}, ".opset: found 12, expected at least 13: 8-bit"),
        ("quickstart", {"batches": "[4, 0]"}, ".batches: found [4, 0], expected different sizes from 1 on"),
        ("quickstart", {"batches": "[4, 4]"}, ".batches: found [4, 4], expected different sizes from 1 on"),
        ("quickstart", {"beam": "true"}, ".beam: found mindir, onnx of model crnn, expected onnx of a model with"),
        ("rare_r34", {"beam": "true", "formats": "[mindir]", "optional": "[]"}, ".beam: found mindir of model rare"),
        ("rare_r34", {"any_width": "true"}, ".any_width: expected model crnn of one view without rectification"),
        ("quickstart", {"any_width": "true", "batches": "[1]"}, ".any_width: expected model crnn of one view without"),
        ("quickstart", {"aipp": "true"}, ".aipp: found True, which is for om files alone: the formats are mindir"),
        ("quickstart", {"precision_mode": "allow_mix_precision"}, ".precision_mode: found allow_mix_precision, which"),
        ("quickstart", {"lite_device": "ascend"}, ".lite_device: found ascend, which is for lite files alone"),
        ("quickstart", {"formats": "[om]", "gears": "true"}, ".batches: found [], expected for gears 2 to 100 sizes"),
        (
            "quickstart",
            {"formats": "[om]", "gears": "true", "batches": "[1, 4096]"},
            ".batches: found [1, 4096], expected for gears 2 to 100 sizes up to 2048",
        ),
        ("quickstart", {"precision_mode": "fp16"}, ".precision_mode: found 'fp16'"),
    ],
)
def test_export_keys_that_do_not_go_together_are_refused_by_name(recipe: str, keys: dict[str, Any], told: str) -> None:
    assert refusal(recipe, **keys).startswith(told)


def test_export_keys_that_go_together_are_taken() -> None:
    keys = ("export.formats=[onnx]", "export.optional=[om, lite, onnx_int8]", "export.batches=[1, 16]",
            "export.gears=true", "export.aipp=true", "export.lite_device=ascend", "export.opset=13")  # fmt: skip
    export = load_recipe(RECIPES / "quickstart.yaml", keys).export
    assert (export.formats, export.optional, export.batches) == (("onnx",), ("om", "lite", "onnx_int8"), (1, 16))
    rare = load_recipe(RECIPES / "rare_r34_tps.yaml", ("export.beam=true", "export.formats=[onnx]"))
    assert dataclasses.asdict(rare.export)["beam"] is True
    only_mindir = load_recipe(
        RECIPES / "rare_r34_tps.yaml", ("export.opset=11", "export.formats=[mindir]", "export.optional=[]")
    )
    assert only_mindir.export.opset == 11


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("epochs=0", "epochs: found 0, expected at least 1"),
        ("lr=0.0", "lr: found 0.0, expected more than 0"),
        ("lr=.inf", "lr: found inf, expected more than 0"),
        ("beta1=1.0", "beta1: found 1.0, expected 0 or more and less than 1"),
        ("beta2=.nan", "beta2: found nan, expected 0 or more and less than 1"),
        ("weight_decay=-0.1", "weight_decay: found -0.1, expected at least 0"),
        ("clip_norm=-1", "clip_norm: found -1.0, expected 0, no limit, or more"),
        ("ema_decay=1.0", "ema_decay: found 1.0, expected 0, none, or more and less than 1"),
        ("teacher_forcing=50", "teacher_forcing: found 50.0, expected a share of 0 to 1"),
        ("loss_scale=1000", "loss_scale: found 1000.0, expected a power of two from 1 on"),
        ("loss_scale=0.5", "loss_scale: found 0.5, expected a power of two from 1 on"),
        ("loss_scale=.inf", "loss_scale: found inf, expected a power of two from 1 on"),
        ("loss_scale=.nan", "loss_scale: found nan, expected a power of two from 1 on"),
        ("profile=-1", "profile: found -1, expected 0, none, or a number of steps"),
        ("checkpoint_minutes=0", "checkpoint_minutes: found 0.0, expected more than 0"),
        ("checkpoint_minutes=.inf", "checkpoint_minutes: found inf, expected more than 0"),
        ("step_timeout_minutes=-2", "step_timeout_minutes: found -2.0, expected more than 0"),
        ("loss_scaling=none", "loss_scaling: found 'none': .*dynamic, static"),
        ("min_lr=0.1", "min_lr: found 0.1 with schedule warmup_cosine and lr 0.016, expected where a cosine"),
        ("min_lr=-0.1", "min_lr: found -0.1, expected at least 0"),
        ("step_epochs=1", "step_epochs: found 1.0 with schedule warmup_cosine, expected none"),
        ("schedule=step", "step_epochs: found 0.0 with schedule step, expected a value"),
        ("schedule=piecewise", r"piece_epochs: found \(\) with schedule piecewise, expected a value"),
        ("lr_factors={backbon: 2}", "lr_factors: 'backbon' is no part of it: did you mean 'backbone'.*head, neck"),
        ("lr_factors={neck: 0}", "lr_factors.neck: found 0.0, expected more than 0"),
        ("freeze={rectifier: 5}", "freeze: 'rectifier' is no part of it: .*known are backbone, head, neck"),
        ("freeze={neck: 0}", "freeze.neck: found 0, expected more than 0"),
        ("freeze={backbone: 5, neck: 5, head: 5}", "freeze: found every part, .*expected one at least that learns"),
        ("choose_by=ned", "choose_by: found 'ned'"),
        ("patience=-1", "patience: found -1, expected 0, none, or a number of validations"),
        ("keep_best=0", "keep_best: found 0, expected at least 1"),
        ("augment_strength=0.5", "augment_strength: found 0.5 with augment none, expected none, which is for words"),
        ("augment=words", "augment_strength: found 0.0 with augment words, expected more than 0 and at most 1"),
        ("start_charset=union", "start_charset: found union, expected none without train.start_from"),
        ("start_share=0.5", "start_share: found 0.5, expected none without train.start_from"),
        ("start_share=1", "start_share: found 1.0, expected a share of 0 or more and less than 1"),
        ("start_from=/data/w.ckpt", "start_from: found /data/w.ckpt, expected a .safetensors file or a recipe's name"),
        ("flat_start_epochs=-0.1", "flat_start_epochs: found -0.1, expected 0, none, or more"),
        ("teacher_forcing=0.5", "teacher_forcing: found 0.5: model crnn has no decoder"),
        ("augment=views", "augment: found views of pictures of 32 x 100, expected a width of several heights"),
    ],
)
def test_what_nothing_can_be_trained_with_is_refused_by_name(change: str, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^quickstart\.yaml: train\.{told}"):
        load_recipe(RECIPES / "quickstart.yaml", (f"train.{change}",))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("schedule=step", "step_epochs=1", "step_factor=2"), "step_factor: found 2.0 after 1.0 epochs each, expected"),
        (("schedule=step", "step_epochs=-1", "step_factor=0.5"), "step_factor: found 0.5 after -1.0 epochs each, ex"),
        (("schedule=piecewise", "piece_epochs=[1]", "piece_lrs=[1.0,2.0]"), "piece_lrs: found 2, expected one for ea"),
        (("schedule=piecewise", "piece_epochs=[1]", "piece_lrs=[-1.0]"), "piece_lrs: found -1.0, expected at least 0"),
        (("schedule=step", "step_epochs=1", "step_factor=0.5", "min_lr=1.0e-6"), "min_lr: found 1e-06 with schedule"),
    ],
)
def test_a_schedules_keys_are_refused_by_name(changes: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=rf"^quickstart\.yaml: train\.{told}"):
        load_recipe(RECIPES / "quickstart.yaml", tuple(f"train.{change}" for change in changes))


def test_words_are_changed_in_their_files_or_as_they_are_drawn() -> None:
    words = ("train.augment=words", "train.augment_strength=1.0")
    with pytest.raises(ValueError, match=r"train\.augment: found words with data\.stored decoded, expected encoded"):
        load_recipe(RECIPES / "quickstart.yaml", words)
    for other in ("data.stored=encoded", "data.streamed=true"):
        assert load_recipe(RECIPES / "quickstart.yaml", (*words, other)).train.augment_strength == 1.0


def test_the_parts_are_the_recognisers() -> None:
    freeze = "train.freeze={rectifier: 5, decoder: 7}"
    assert load_recipe(RECIPES / "rare_r34_tps.yaml", (freeze,)).train.freeze == {"rectifier": 5, "decoder": 7}


def test_a_lowest_rate_is_refused_where_the_rate_is_constant() -> None:
    with pytest.raises(ValueError, match=r"train\.min_lr: found 1e-06 with schedule constant and lr 0.0008"):
        load_recipe(RECIPES / "seq2seq_fsns.yaml", ("train.min_lr=1.0e-6",))


def test_the_bounds_themselves_are_taken() -> None:
    edge = ("loss_scale=1", "beta1=0", "ema_decay=0", "clip_norm=0", "weight_decay=0", "min_lr=4.0e-3", "profile=0",
            "checkpoint_minutes=0.001", "teacher_forcing=1")  # fmt: skip
    train = load_recipe(RECIPES / "quickstart.yaml", tuple(f"train.{change}" for change in edge)).train
    assert (train.loss_scale, train.min_lr, train.checkpoint_minutes) == (1.0, 4.0e-3, 0.001)


def test_a_longest_label_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.max_label: found -1, expected 0, any length, or more"):
        load_recipe(RECIPES / "quickstart.yaml", ("data.max_label=-1",))


def test_pictures_that_no_file_holds_cannot_be_left_out() -> None:
    changes = ("data.streamed=true", "data.leave_out_leaks=true")
    with pytest.raises(
        ValueError, match=r"data\.leave_out_leaks: found true with data\.streamed, whose pictures are in"
    ):
        load_recipe(RECIPES / "quickstart.yaml", changes)


# The peers' own limits; the port for Ascend's PyTorch has none, and FSNS is filtered as strictly as by DTRB.
POLICIES = {
    "crnn_vgg7": ("mindocr", 23),
    "crnn_r34": ("mindocr", 24),
    "crnn_icdar15": ("mindocr", 23),
    "crnn_r34_ch": ("mindocr", 40),
    "rare_r34": ("mindocr", 25),
    "rare_r34_tps": ("mindocr", 25),
    "rare_r34_ch": ("mindocr", 40),
    "crnn_mv3": ("paddleocr", 25),
    "crnn_npu": ("dtrb", 0),
    "seq2seq_fsns": ("dtrb", 62),
    "quickstart": ("mindocr", 25),
    "small": ("mindocr", 25),
    "svtr_tiny": ("parseq", 24),
}


def test_every_recipe_filters_labels_as_its_original() -> None:
    found = {path.stem: load_recipe(path).data for path in RECIPES.glob("*.yaml")}
    assert {name: (data.label_policy, data.max_label) for name, data in found.items()} == POLICIES


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ("{a: 0.5, b: 0.4}", "data.shares: found 0.9 in all, expected shares that add up to 1"),
        ("{a: 0.5}", "data.shares: found a, expected the sets of data.train, each once: a, b"),
        ("{a: 0.5, c: 0.5}", "data.shares: found a, c, expected the sets of data.train"),
        ("{a: 1.5, b: -0.5}", "data.shares.a: found 1.5, expected more than 0 and at most 1"),
        ("{a: 0.0, b: 1.0}", "data.shares.a: found 0.0, expected more than 0"),
        ("[a, b]", r"data.shares: expected a mapping, found list \['a', 'b'\]"),
    ],
)
def test_shares_that_do_not_add_up_are_refused(shares: str, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^quickstart\.yaml: {told}"):
        load_recipe(RECIPES / "quickstart.yaml", ("data.train=[a, b]", f"data.shares={shares}"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["data.fractions={rendered_train: 0.5}"], "found rendered_train, expected sets .* by data.shares: none has"),
        (["data.shares={rendered_train: 1.0}", "data.fractions={a: 0.5}"], "found a, expected sets that have a share"),
        (["data.shares={rendered_train: 1.0}", "data.fractions={rendered_train: 0.0}"], "found 0.0, expected more"),
        (["data.epoch_samples=64"], "found 64, expected 0, or with data.shares a number of samples"),
        (["data.shares={rendered_train: 1.0}", "data.epoch_samples=-1"], "found -1, expected 0, or with data.shares"),
    ],
)
def test_fractions_and_epochs_that_are_of_no_set_or_leave_nothing_are_refused(changes: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=rf"^quickstart\.yaml: data\.(fractions|epoch_samples).*{told}"):
        load_recipe(RECIPES / "quickstart.yaml", tuple(changes))


def test_shares_are_of_sets_that_are_stored() -> None:
    one = ("data.shares={rendered_train: 1.0}",)
    assert load_recipe(RECIPES / "quickstart.yaml", one).data.shares == {"rendered_train": 1.0}
    with pytest.raises(ValueError, match=r"data\.shares: found .* with data\.streamed, expected none: it has one set"):
        load_recipe(RECIPES / "quickstart.yaml", (*one, "data.streamed=true"))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("svtr_tiny", "model.hidden=3", "model.hidden: found 3, expected none: there is no neck"),
        ("crnn_r34", "model.layers=0", "model.layers: found 0, expected at least 1 for neck bilstm"),
        ("svtr_tiny", "export.any_width=true", "export.any_width: expected model crnn of one view without"),
        ("svtr_tiny", "export.opset=15", "export.opset: found 15, expected at least 16: ONNX has GridSample, which "
         "model.rectification stn needs"),
        ("svtr_tiny", "data.stored=decoded", "train.augment: found svtr with data.stored decoded, expected encoded"),
        ("quickstart", "train.guide=-1.0", "train.guide: found -1.0, expected 0, none, or more"),
        ("rare_r34", "train.guide=1.0", "train.guide: found 1.0: model rare has no CTC"),
    ],
)  # fmt: skip
def test_svtr_and_a_guide_go_with_what_they_need(name: str, change: str, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\.yaml: {told}"):
        load_recipe(RECIPES / f"{name}.yaml", (change,))
