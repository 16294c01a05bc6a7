"""Which keys of a recipe go together."""

import math
from collections.abc import Callable

from wordmill.recipe.parsing import nearest
from wordmill.recipe.schedule import parts_of_model
from wordmill.recipe.sections import INT8, Data, Export, Model, Recipe, Train

OPSETS = range(11, 18)  # CANN's atc reads no later ones, and the converters are tried with no earlier ones
GRID_SAMPLE_OPSET = 16  # the first with the operator that rectification needs
PER_CHANNEL_OPSET = 13  # the first whose quantisation has a scale for each channel
MOST_GEARS, LARGEST_GEAR = 100, 2048  # of one om file
SCHEDULE_KEYS = {"step": ("step_epochs", "step_factor"), "piecewise": ("piece_epochs", "piece_lrs")}
SHARES_TOLERANCE = 1e-6  # of a sum of decimals
ATC_DEFAULTS = {"precision_mode": "force_fp16", "output_type": "FP32", "aipp": False, "gears": False}

# Of keys of train: what a value must be, and in words.
BOUNDS: dict[str, tuple[Callable[[float], bool], str]] = {
    "patience": (lambda value: value >= 0, "0, none, or a number of validations"),
    "keep_best": (lambda value: value >= 1, "at least 1"),
    "epochs": (lambda value: value >= 1, "at least 1"),
    "lr": (lambda value: 0 < value < math.inf, "more than 0"),
    "min_lr": (lambda value: 0 <= value < math.inf, "at least 0"),
    "beta1": (lambda value: 0 <= value < 1, "0 or more and less than 1"),
    "beta2": (lambda value: 0 <= value < 1, "0 or more and less than 1"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "at least 0"),
    "clip_norm": (lambda value: 0 <= value < math.inf, "0, no limit, or more"),
    "ema_decay": (lambda value: 0 <= value < 1, "0, none, or more and less than 1"),
    "teacher_forcing": (lambda value: 0 <= value <= 1, "a share of 0 to 1"),
    "guide": (lambda value: 0 <= value < math.inf, "0, none, or more"),
    "start_share": (lambda value: 0 <= value < 1, "a share of 0 or more and less than 1"),
    "flat_start_epochs": (lambda value: 0 <= value < math.inf, "0, none, or more"),
    "loss_scale": (lambda value: value >= 1 and math.frexp(value)[0] == 0.5, "a power of two from 1 on"),
    "profile": (lambda value: value >= 0, "0, none, or a number of steps"),
    "checkpoint_minutes": (lambda value: 0 < value < math.inf, "more than 0"),
    "step_timeout_minutes": (lambda value: 0 < value < math.inf, "more than 0"),
}


def check_together(recipe: Recipe, where: str) -> None:
    """Refuse a recipe whose keys are right each by itself and do not go together."""
    model, train = recipe.model, recipe.train
    kinds = ("ctc", "ctc_by_length") if model.name == "crnn" else ("cross_entropy", "cross_entropy_unmasked")
    if train.loss not in kinds:
        raise ValueError(f"{where}: train.loss: found {train.loss}, model {model.name} needs one of {', '.join(kinds)}")
    if (model.max_length > 0) != (model.name == "rare"):
        needed = "at least 1 for model rare" if model.name == "rare" else f"none: model {model.name} derives it"
        raise ValueError(f"{where}: model.max_length: found {model.max_length}, expected {needed}")
    if (model.decoder_hidden > 0) != (model.name != "crnn"):
        needed = "none: model crnn has no decoder" if model.name == "crnn" else f"at least 1 for model {model.name}"
        raise ValueError(f"{where}: model.decoder_hidden: found {model.decoder_hidden}, expected {needed}")
    for key in ("hidden", "layers"):
        if (getattr(model, key) > 0) != (model.neck != "none"):
            needed = "none: there is no neck" if model.neck == "none" else f"at least 1 for neck {model.neck}"
            raise ValueError(f"{where}: model.{key}: found {getattr(model, key)}, expected {needed}")
    if recipe.data.max_label < 0:
        raise ValueError(f"{where}: data.max_label: found {recipe.data.max_label}, expected 0, any length, or more")
    if recipe.data.streamed and len(recipe.data.train) != 1:
        raise ValueError(f"{where}: data.streamed: found {len(recipe.data.train)} sets in data.train, expected one")
    _check_shares(recipe.data, f"{where}: data.shares")
    _check_fractions(recipe.data, f"{where}: data")
    if recipe.data.streamed and recipe.data.leave_out_leaks:
        raise ValueError(f"{where}: data.leave_out_leaks: found true with data.streamed, whose pictures are in no file")
    if recipe.evaluation.beams < 1:
        raise ValueError(f"{where}: evaluation.beams: found {recipe.evaluation.beams}, expected at least 1")
    _check_train(train, recipe.data, model, f"{where}: train")
    _check_export(recipe.export, model, f"{where}: export")


def _check_shares(data: Data, where: str) -> None:
    """Refuse shares of other sets than those of data.train, and those that do not add up."""
    if not data.shares:
        return
    if data.streamed:
        raise ValueError(f"{where}: found {data.shares} with data.streamed, expected none: it has one set")
    if sorted(data.shares) != sorted(data.train):
        raise ValueError(f"{where}: found {', '.join(sorted(data.shares))}, expected the sets of data.train, each "
                         f"once: {', '.join(sorted(data.train))}")  # fmt: skip
    if wrong := [name for name, share in data.shares.items() if not 0 < share <= 1]:
        raise ValueError(f"{where}.{wrong[0]}: found {data.shares[wrong[0]]}, expected more than 0 and at most 1")
    if not math.isclose(total := sum(data.shares.values()), 1.0, abs_tol=SHARES_TOLERANCE):
        raise ValueError(f"{where}: found {total:g} in all, expected shares that add up to 1")


def _check_fractions(data: Data, where: str) -> None:
    """Refuse parts of sets that have no share, those that are none, and a length of epochs that nothing mixes."""
    if others := [name for name in data.fractions if name not in data.shares]:
        raise ValueError(f"{where}.fractions: found {others[0]}, expected sets that have a share, by data.shares: "
                         f"{', '.join(data.shares) or 'none has'}")  # fmt: skip
    for name, fraction in data.fractions.items():
        if not 0 < fraction <= 1:
            raise ValueError(f"{where}.fractions.{name}: found {fraction}, expected more than 0 and at most 1")
    if data.epoch_samples < 0 or (data.epoch_samples and not data.shares):
        raise ValueError(f"{where}.epoch_samples: found {data.epoch_samples}, expected 0, or with data.shares a number "
                         "of samples")  # fmt: skip


def _check_train(train: Train, data: Data, model: Model, where: str) -> None:
    """Refuse values that nothing can be trained with, and those that would change nothing."""
    for key, (fits, expected) in BOUNDS.items():
        if not fits(value := getattr(train, key)):
            raise ValueError(f"{where}.{key}: found {value}, expected {expected}")
    if train.min_lr > train.lr or (train.min_lr and train.schedule not in ("warmup_cosine", "one_cycle")):
        raise ValueError(f"{where}.min_lr: found {train.min_lr} with schedule {train.schedule} and lr {train.lr}, "
                         "expected where a cosine from lr ends, at most lr")  # fmt: skip
    _check_schedule(train, where)
    _check_parts(train, model, where)
    if "/" in train.start_from and not train.start_from.endswith(".safetensors"):
        raise ValueError(
            f"{where}.start_from: found {train.start_from}, expected a .safetensors file or a recipe's name"
        )
    for key, none in (("start_charset", "same"), ("start_share", 0.0)):
        if (value := getattr(train, key)) != none and not train.start_from:
            raise ValueError(f"{where}.{key}: found {value}, expected none without train.start_from")
    for key in ("flat_start_epochs", "guide"):
        if getattr(train, key) and model.name != "crnn":
            raise ValueError(f"{where}.{key}: found {getattr(train, key)}: model {model.name} has no CTC")
    if train.teacher_forcing < 1 and model.name == "crnn":
        raise ValueError(f"{where}.teacher_forcing: found {train.teacher_forcing}: model crnn has no decoder")
    if (train.augment == "words") != (0 < train.augment_strength <= 1):
        expected = "more than 0 and at most 1" if train.augment == "words" else "none, which is for words alone"
        raise ValueError(f"{where}.augment_strength: found {train.augment_strength} with augment {train.augment}, "
                         f"expected {expected}")  # fmt: skip
    if train.augment in ("words", "svtr") and data.stored != "encoded" and not data.streamed:
        raise ValueError(f"{where}.augment: found {train.augment} with data.stored {data.stored}, expected encoded, or "
                         "data.streamed: pictures are changed before they are fitted")  # fmt: skip
    if train.augment == "views" and data.width % data.height:
        raise ValueError(f"{where}.augment: found views of pictures of {data.height} x {data.width}, expected a width "
                         "of several heights, the views side by side")  # fmt: skip


def _check_schedule(train: Train, where: str) -> None:
    """Refuse keys of another schedule than the recipe's, and values that make none."""
    for schedule, keys in SCHEDULE_KEYS.items():
        for key in keys:
            if bool(value := getattr(train, key)) != (train.schedule == schedule):
                expected = "a value" if train.schedule == schedule else "none"
                raise ValueError(f"{where}.{key}: found {value} with schedule {train.schedule}, expected {expected}")
    if train.schedule == "step" and not (0 < train.step_epochs < math.inf and 0 < train.step_factor <= 1):
        raise ValueError(f"{where}.step_factor: found {train.step_factor} after {train.step_epochs} epochs each, "
                         "expected more than 0 and at most 1, after more than 0")  # fmt: skip
    if len(train.piece_epochs) != len(train.piece_lrs):
        raise ValueError(f"{where}.piece_lrs: found {len(train.piece_lrs)}, expected one for each of piece_epochs, "
                         f"{len(train.piece_epochs)}")  # fmt: skip
    if wrong := [rate for rate in train.piece_lrs if not 0 <= rate < math.inf]:
        raise ValueError(f"{where}.piece_lrs: found {wrong[0]}, expected at least 0")


def _check_parts(train: Train, model: Model, where: str) -> None:
    """Refuse parts that the recogniser does not have, and what changes none of them or leaves none to learn."""
    parts = parts_of_model(model)
    for key, values in (("lr_factors", train.lr_factors), ("freeze", train.freeze)):
        if unknown := [name for name in values if name not in parts]:
            raise ValueError(f"{where}.{key}: '{unknown[0]}' is no part of it: {nearest(unknown[0], list(parts))}")
        if wrong := [name for name, value in values.items() if not 0 < value < math.inf]:
            raise ValueError(f"{where}.{key}.{wrong[0]}: found {values[wrong[0]]}, expected more than 0")
    if len(train.freeze) == len(parts):
        raise ValueError(f"{where}.freeze: found every part, {', '.join(parts)}, expected one at least that learns")


def _check_export(export: Export, model: Model, where: str) -> None:
    """Refuse an export section whose keys do not go together or do not fit the model; ValueError names the key."""
    named = (*export.formats, *export.optional)
    if twice := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"{where}: '{twice[0]}' is named twice: expected once, in formats or in optional")
    if export.opset not in OPSETS:
        raise ValueError(f"{where}.opset: found {export.opset}, expected {OPSETS[0]} to {OPSETS[-1]}")
    if any(batch < 1 for batch in export.batches) or len(set(export.batches)) < len(export.batches):
        raise ValueError(f"{where}.batches: found {list(export.batches)}, expected different sizes from 1 on")
    _check_model(export, model, named, where)
    _check_converters(export, named, where)


def _check_model(export: Export, model: Model, named: tuple[str, ...], where: str) -> None:
    """Refuse what the recogniser cannot be written as."""
    if set(named) - {"mindir"}:
        check_grid_sample(export.opset, model, where)
    if set(INT8) & set(named) and export.opset < PER_CHANNEL_OPSET:
        raise ValueError(f"{where}.opset: found {export.opset}, expected at least {PER_CHANNEL_OPSET}: 8-bit weights "
                         "have a scale per channel, which ONNX takes from there on")  # fmt: skip
    if export.beam and ("onnx" not in named or model.name == "crnn"):
        raise ValueError(f"{where}.beam: found {', '.join(named)} of model {model.name}, expected onnx of a model with "
                         "a decoder, rare or seq2seq: CTC's beam search needs the logits alone")  # fmt: skip
    bound = model.name != "crnn" or model.backbone in ("svtr_tiny", "views_cnn") or model.rectification != "none"
    if export.any_width and (bound or export.batches):
        raise ValueError(f"{where}.any_width: expected model crnn of one view without rectification and no "
                         f"export.batches: the weights or sizes of others hold the width")  # fmt: skip
    if export.any_width and not {"onnx", "mindir"} & set(named):
        raise ValueError(f"{where}.any_width: found {', '.join(named)}, expected onnx or mindir among them")


def check_grid_sample(opset: int, model: Model, where: str) -> None:
    """Refuse an opset without the operator that a rectifying model needs."""
    if model.rectification != "none" and opset < GRID_SAMPLE_OPSET:
        raise ValueError(f"{where}.opset: found {opset}, expected at least {GRID_SAMPLE_OPSET}: ONNX has GridSample, "
                         f"which model.rectification {model.rectification} needs, from there on")  # fmt: skip


def _check_converters(export: Export, named: tuple[str, ...], where: str) -> None:
    """Refuse options of converters that nothing is converted by, and gears that atc does not take."""
    for key, default in ATC_DEFAULTS.items():
        if "om" not in named and getattr(export, key) != default:
            raise ValueError(f"{where}.{key}: found {getattr(export, key)}, which is for om files alone: "
                             f"the formats are {', '.join(named)}")  # fmt: skip
    if "lite" not in named and export.lite_device != "cpu":
        raise ValueError(f"{where}.lite_device: found {export.lite_device}, which is for lite files alone: "
                         f"the formats are {', '.join(named)}")  # fmt: skip
    if export.gears and not (2 <= len(export.batches) <= MOST_GEARS and max(export.batches) <= LARGEST_GEAR):
        raise ValueError(f"{where}.batches: found {list(export.batches)}, expected for gears 2 to {MOST_GEARS} sizes "
                         f"up to {LARGEST_GEAR}")  # fmt: skip
