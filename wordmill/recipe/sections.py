"""Recipes: typed, frozen sections read from YAML or from the JSON text that a stage receives."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from wordmill.recipe.rules import check_together

Section = TypeVar("Section")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on: data sets of the catalogue, the characters, and how a picture becomes an input."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    charset: str
    height: int
    width: int
    channels: Literal[1, 3]
    # By whose rules labels of training sets are shortened, emptied or dropped: labels.py has the table.
    label_policy: Literal["mindocr", "dtrb", "dtrb_unfiltered", "parseq", "paddleocr"] = "mindocr"
    max_label: int = 25  # characters of the longest label that the policy takes; 0: of any length
    limit: int = 0  # use only the first so many samples of each training set; 0: all
    space: bool = False  # the space is a character too, behind those of the charset
    fit: Literal["stretch", "pad_black", "pad_grey"] = "stretch"  # or keep the ratio of the sides, padded on the right
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    turn_tall: bool = False  # pictures over twice as high as wide are first turned a quarter to the left
    # Shards hold pictures as they go in, or the files that they come in: smaller, and decoded at every reading.
    stored: Literal["decoded", "encoded"] = "decoded"
    # The one training set, a rendered one, is drawn while training: no file holds it, and no picture comes twice.
    streamed: bool = False
    middle: float = 127.5  # the level that a recogniser reads as 0: its input is (x - middle) / middle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The recogniser: what turns (N, C, H, W) into logits (N, T, classes)."""

    name: Literal["crnn", "rare", "seq2seq"]
    backbone: Literal["compact", "vgg7", "vgg7_padded", "resnet34_vd", "mobilenet_v3", "views_cnn"]
    neck: Literal["bilstm", "bilstm_linked"]
    hidden: int
    layers: int
    rectification: Literal["none", "tps"] = "none"
    max_length: int = 0  # characters that rare's decoder can write; others derive it from the picture's width
    decoder_hidden: int = 0  # of the attention decoders of rare and seq2seq


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """How it is trained; the batch is the global one, over all devices, of one step of the optimiser."""

    framework: Literal["pytorch", "mindspore"]
    epochs: int
    global_batch: int
    # Means of each sample's loss: over the batch; the same after a division by the label's length; over the batch's
    # characters; over the batch of sums over all steps, padding included.
    loss: Literal["ctc", "ctc_by_length", "cross_entropy", "cross_entropy_unmasked"]
    optimizer: Literal["adamw", "adam", "adadelta", "lion"]
    lr: float
    warmup_epochs: float
    weight_decay: float
    amp: Literal["O0", "O1", "O2", "O3"]
    seed: int
    schedule: Literal["warmup_cosine", "constant"] = "warmup_cosine"
    min_lr: float = 0.0  # where the cosine ends
    beta1: float = 0.9
    beta2: float = 0.999
    decay_all: bool = True  # weight decay on biases and normalisation too, as the published recipes have it
    clip_norm: float = 0.0  # 0: gradients are not clipped
    accumulation: int = 1  # parts of a batch that go through the network one after the other
    ema_decay: float = 0.0  # of the moving average that is validated and kept; 0: the weights themselves
    start_from: str = ""  # a .safetensors file, or a recipe whose champion's weights training starts from
    teacher_forcing: float = 1.0  # share of the samples whose decoder is told the truth before each step
    augment: Literal["none", "views"] = "none"
    validations_per_epoch: int = 1
    sync_batch_norm: bool = False  # statistics of the global batch, not of each process's own as in the published runs
    loss_scale: float = 1024.0  # where gradients are float16; dynamic: halved where they overflow, doubled in time
    loss_scaling: Literal["static", "dynamic"] = "static"
    profile: int = 0  # so many steps are traced for the framework's viewer
    checkpoint_minutes: float = 10.0
    step_timeout_minutes: float = 15.0  # a process that takes longer over a step hangs


OPERATION = ("checkpoint_minutes", "step_timeout_minutes")  # keys of train that no result depends on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a recogniser is measured: by whose rules its readings are compared with the labels, and how it reads."""

    protocol: Literal["mindocr", "dtrb", "parseq", "paddleocr", "fudan", "fsns"]
    beams: int = 1  # hypotheses of a beam search; 1: the likeliest class at each step
    amp: Literal["O0", "O1", "O2", "O3"] = "O0"  # as in train; O0, float32, is what exported files are compared with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate must reach: a floor for the first model, a tolerance against the champion, floors for all."""

    floor: float  # plain mean of the benchmarks' word accuracy, 0..1
    tolerance: float  # how far below the champion's mean it may lie, 0..1
    floors: dict[str, float] = dataclasses.field(default_factory=dict)  # benchmark -> least word accuracy, 0..1


Format = Literal["mindir", "onnx", "onnx_int8", "om", "lite"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """The file formats made of the trained model, and the largest logit difference that those in fp32 may show."""

    formats: tuple[Format, ...]  # a run fails where one of them cannot be made
    optional: tuple[Format, ...] = ()  # one that cannot be made is reported with the reason
    logit_tolerance: float = 1e-3
    opset: int = 17  # of ONNX, and of what om and lite are converted from
    batches: tuple[int, ...] = ()  # one file for each; none: files for any batch, and for om 1, 16 and 64
    any_width: bool = False  # crnn's onnx and mindir files take pictures of any width
    beam: bool = False  # onnx: an attention recogniser's encoder and decoder too, as two files
    # ATC's options; pictures go as bytes into a file with aipp; gears: one file for all of the batches.
    precision_mode: Literal["force_fp16", "allow_fp32_to_fp16", "allow_mix_precision", "must_keep_origin_dtype"] = (
        "force_fp16"
    )
    output_type: Literal["FP32", "FP16"] = "FP32"
    aipp: bool = False
    gears: bool = False
    lite_device: Literal["cpu", "ascend"] = "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recogniser from data to exported files."""

    name: str
    data: Data
    model: Model
    train: Train
    benchmarks: tuple[str, ...]
    evaluation: Evaluation
    gate: Gate
    export: Export


SECTIONS: dict[str, type] = {
    "data": Data,
    "model": Model,
    "train": Train,
    "evaluation": Evaluation,
    "gate": Gate,
    "export": Export,
}


def nearest(word: str, known: list[str]) -> str:
    """Return a clause that lists the known words, the one that looks like `word` first."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known are {', '.join(sorted(known))}"


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file and apply overrides such as `train.epochs=1`; ValueError names file and key."""
    document = read_yaml(path)
    own = document.get("benchmarks")
    for override in overrides:
        _override(document, override)
    where = path.name
    unknown = sorted(set(document) - {*SECTIONS, "benchmarks"})
    if unknown:
        raise ValueError(f"{where}: unknown section '{unknown[0]}': {nearest(unknown[0], [*SECTIONS, 'benchmarks'])}")
    missing = [name for name in (*SECTIONS, "benchmarks") if name not in document]
    if missing:
        raise ValueError(f"{where}: section '{missing[0]}' is missing")
    benchmarks = _value(document["benchmarks"], tuple[str, ...], f"{where}: benchmarks")
    if not benchmarks:
        raise ValueError(f"{where}: benchmarks: the list is empty, at least one benchmark is needed")
    sections: dict[str, Any] = {
        name: parse_section(kind, document[name], f"{where}: {name}") for name, kind in SECTIONS.items()
    }
    recipe = Recipe(name=path.stem, benchmarks=benchmarks, **sections)
    check_together(recipe, where)
    # A run of fewer benchmarks than the recipe's own keeps the floors of them all: it cannot be promoted past them.
    _check_gate(recipe.gate, {*benchmarks, *(own if isinstance(own, list) else ())}, f"{where}: gate")
    learnt = {*recipe.data.train, *recipe.data.val}
    if leaked := [name for name in benchmarks if name in learnt]:
        raise ValueError(f"{where}: benchmarks: '{leaked[0]}' is trained or validated on too: it would measure memory")
    return recipe


def _check_gate(gate: Gate, benchmarks: set[str], where: str) -> None:
    """Refuse floors of no benchmark and bounds that are no share, such as per cent."""
    for name in gate.floors:
        if name not in benchmarks:
            raise ValueError(f"{where}.floors: '{name}' is no benchmark here: {nearest(name, sorted(benchmarks))}")
    floors = {f"floors.{name}": floor for name, floor in gate.floors.items()}
    for key, bound in {"floor": gate.floor, "tolerance": gate.tolerance, **floors}.items():
        if not 0 <= bound <= 1:
            raise ValueError(f"{where}.{key}: found {bound}, expected a share of 0 to 1")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping; ValueError names the file and the place."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a mapping of keys to values, found {type(document).__name__}")
    return document


def _override(document: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise ValueError(f"override '{text}': expected KEY=VALUE such as train.epochs=1")
    target = document
    for part in parts[:-1]:
        if not isinstance(target.get(part), dict):
            raise ValueError(f"override '{text}': unknown section '{part}': {nearest(part, list(SECTIONS))}")
        target = target[part]
    target[parts[-1]] = yaml.safe_load(value)


def parse_section(kind: type[Section], values: Any, where: str) -> Section:
    """Build a section from a mapping; unknown keys, missing keys and wrong types are ValueErrors that name them."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping, found {type(values).__name__} {values!r}")
    hints = get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ValueError(f"{where}: unknown key '{key}': {nearest(str(key), list(hints))}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ValueError(f"{where}: key '{field.name}' is missing")
    return kind(**{key: _value(value, hints[key], f"{where}.{key}") for key, value in values.items()})


def _value(value: Any, kind: Any, where: str) -> Any:
    """Check one value against its annotation and return it in that type."""
    if get_origin(kind) is Literal:
        return _choice(value, get_args(kind), where)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, found {type(value).__name__} {value!r}")
        return tuple(_value(item, get_args(kind)[0], f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected a mapping, found {type(value).__name__} {value!r}")
        key, item = get_args(kind)
        return {_value(k, key, f"{where}: key"): _value(v, item, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(
            f"{where}: expected {kind.__name__}, found {type(value).__name__} {value!r}{_hint(value, kind)}"
        )
    return value


def _choice(value: Any, known: tuple[Any, ...], where: str) -> Any:
    if value in known and type(value) in {type(item) for item in known}:
        return value
    raise ValueError(f"{where}: found {value!r}: {nearest(str(value), [str(item) for item in known])}")


def _hint(value: Any, kind: Any) -> str:
    """Explain YAML 1.1's reading of 5e-4 as text, the one trap that everybody meets."""
    if kind is not float or not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    mantissa, _, exponent = value.lower().partition("e")
    return f": to YAML a number with an exponent needs a decimal point, write {mantissa}.0e{exponent}"


def to_json(section: Any) -> str:
    """Return the canonical JSON text of a section, the form in which a stage receives it."""
    return json.dumps(dataclasses.asdict(section), sort_keys=True)


def from_json(kind: type[Section], text: str) -> Section:
    """Read a section back from the JSON text that a stage received."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"section {kind.__name__.lower()}: not JSON: {error}") from None
    return parse_section(kind, values, f"section {kind.__name__.lower()}")
