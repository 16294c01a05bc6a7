"""Import of published weights: `python -m wordmill.models.convert FILE --recipe RECIPE.yaml --output FILE`.

MindOCR's .ckpt files: names and order of classes as in its release 0.5.0 (mindocr/models/backbones/rec_vgg.py,
rec_resnet.py and rec_svtr.py, transforms/stn.py, necks/rnn.py, heads/rec_ctc_head.py and rec_attn_head.py), which its
published files are loaded by.
CRNN's .pth files: names as in meijieru/crnn.pytorch, Sierkinhane/CRNN_Chinese_Characters_Rec and Ascend's port of it
(Ascend/ModelZoo-PyTorch, CRNN_for_PyTorch/crnn.py), which splits each bidirectional LSTM into one for each direction.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wordmill.models import checkpoint
from wordmill.models.architectures import SVTR_STAGES
from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.recipe.frameworks import twin
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe
from wordmill.text.charset import unusual
from wordmill.text.decoding import codec_of

Rename = str | Callable[[re.Match[str]], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where weights come from: the framework that reads them, the backbones they have, and how their names change.

    Names change from their start on, by each of the patterns in turn.
    """

    framework: str
    backbones: tuple[str, ...]
    names: tuple[tuple[str, Rename], ...]


def _from_one(pattern: str, name: str) -> tuple[str, Rename]:
    """Return the renaming of layers that are counted from 0 there and from 1 here."""
    return pattern, lambda match: f"{name}{int(match[1]) + 1}."


def _after_pool(match: re.Match[str]) -> int:
    """Return the number of a convolution, from 1, that is counted together with the pools between there."""
    return int(match[1]) // 2 + 1


def _svtr_block(match: re.Match[str]) -> str:
    """Return the name of a block that is counted from 0 within its stage there and through all stages here."""
    before = sum(depth for _, depth, _ in SVTR_STAGES[: int(match[1]) - 1])
    return f"backbone.blocks.{before + int(match[2])}."


ORIGINS = {
    ".ckpt": Origin(
        framework="mindspore",
        backbones=("vgg7", "resnet34_vd", "svtr_tiny"),
        names=(
            (r"transform\.stn_head\.stn_convnet\.(\d+)\.0\.", lambda match: f"rectifier.conv{_after_pool(match)}."),
            (r"transform\.stn_head\.stn_convnet\.(\d+)\.1\.", lambda match: f"rectifier.bn{_after_pool(match)}."),
            (r"transform\.stn_head\.stn_fc1\.0\.", "rectifier.fc1."),
            (r"transform\.stn_head\.stn_fc1\.1\.", "rectifier.norm1."),
            (r"transform\.stn_head\.stn_fc2\.", "rectifier.fc2."),
            (r"backbone\.pos_embed\Z", "backbone.positions"),
            (r"backbone\.last_conv\.", "backbone.conv."),
            _from_one(r"backbone\.patch_embed\.proj\.(\d)\.", "backbone.embed"),
            (r"backbone\.blocks(\d)\.(\d)\.(?:mixer\.|mlp\.)?", _svtr_block),
            (r"backbone\.sub_sample(\d)\.", lambda match: f"backbone.merges.{int(match[1]) - 1}."),
            (r"backbone\.conv(\d)\.conv\.", r"backbone.conv\1."),
            (r"backbone\.conv(\d)\.bn\.", r"backbone.bn\1."),
            (r"backbone\.conv1_(\d)\.", r"backbone.conv\1."),
            (r"backbone\.block_list\.(\d+)\.short\.", r"backbone.blocks.\1.shortcut."),
            (r"backbone\.block_list\.(\d+)\.conv0\.", r"backbone.blocks.\1.conv1."),
            (r"backbone\.block_list\.(\d+)\.conv1\.", r"backbone.blocks.\1.conv2."),
            (r"(backbone\.(?!merges\.).*)\.norm\.", r"\1.bn."),
            (r"neck\.seq_encoder\.", "neck.rnn."),
            (r"head\.dense1\.", "head."),
            (r"head\.attention_cell\.rnn\.", "decoder.gru."),
            (r"head\.attention_cell\.", "decoder."),
            (r"head\.generator\.", "decoder.generator."),
        ),
    ),
    ".pth": Origin(
        framework="pytorch",
        backbones=("vgg7_padded",),
        names=(
            _from_one(r"cnn\.conv(\d)\.", "backbone.conv"),
            _from_one(r"cnn\.batchnorm(\d)\.", "backbone.bn"),
            (r"rnn\.(\d)\.(?:fw_)?rnn\.", r"neck.rnns.\1."),
            (r"rnn\.(\d)\.bw_rnn\.(\w+)", r"neck.rnns.\1.\2_reverse"),
            (r"rnn\.0\.embedding\.", "neck.linears.0."),
            (r"rnn\.1\.embedding\.", "head."),
        ),
    ),
}

# What MindOCR's training states hold beside the weights: copies of them by prefix, and single values.
TRAINING_STATE = re.compile(
    r"(adam_[mv]|lion_m|nadam_[mv]|moment\w*|moments|accum|stat|ema|swap|grad_accumulated_|zeros_)\..*"
    r"|(beta[12]_power|global_step|learning_rate\w*|epoch_num|loss_scale|scale_sense|mu_schedule|updates"
    r"|grad_accumulate_step_|\w+_iterator_step)"
)


def main(arguments: list[str] | None = None) -> None:
    """Convert one file; what is wrong with it ends in one line and code 1."""
    parser = argparse.ArgumentParser(prog="python -m wordmill.models.convert", description=__doc__)
    parser.add_argument("file", type=Path, help="MindOCR's .ckpt or CRNN's .pth")
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe file of the recogniser")
    parser.add_argument("--charset", default="", help="a .txt file with the characters that the weights know, in order")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    options = parser.parse_args(arguments)
    try:
        print(convert(options.file, load_recipe(options.recipe), options.charset, options.output))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def convert(path: Path, recipe: Recipe, charset: str, output: Path) -> str:
    """Write the weights of a published file as a checkpoint of the recipe, and return what was done as text."""
    origin = _origin(path, recipe)
    if output.suffix != ".safetensors" or not output.parent.is_dir():
        raise ValueError(f"--output {output}: expected a .safetensors file in a folder that is there")
    data = dataclasses.replace(recipe.data, charset=_charset(recipe, charset))
    found = twin(origin.framework, "models.foreign").read(path)
    weights = {name: values for name, values in found.items() if not TRAINING_STATE.fullmatch(name)}
    tensors = {renamed(name, origin): values for name, values in weights.items()}
    if len(tensors) < len(weights):
        raise ValueError(f"{path}: {len(weights)} weights have {len(tensors)} names here: expected one scheme of names")
    moved = path.suffix == ".ckpt" and recipe.model.name == "crnn"
    if moved:
        tensors |= blank_first(tensors)
    net = twin(origin.framework, "models.model").build(recipe.model, data, codec_of(recipe.model, data).classes)
    expected = twin(origin.framework, "models.weights").dump(net)
    checkpoint.check_fit({name: values.shape for name, values in expected.items()}, tensors, str(path))
    made = Checkpoint(tensors=tensors, data=data, model=recipe.model, train=recipe.train, step=0)
    checkpoint.save(output, made)
    size = sum(values.size for name, values in tensors.items() if ".running_" not in name)
    left_out = len(found) - len(weights)
    notes = f"; {left_out} values of the training's state left out" if left_out else ""
    notes += "; the blank moved from the last class to the first" if moved else ""
    notes += f"; {told}" if (told := unusual(data.charset)) else ""
    return f"{output}: {recipe.name} with {size:,} parameters of {path}{notes}"


def renamed(name: str, origin: Origin) -> str:
    """Return this project's name of a weight, or the name itself where the origin's scheme has none such."""
    for pattern, replacement in origin.names:
        name = re.sub(rf"\A{pattern}", replacement, name)
    return name


def blank_first(tensors: Tensors) -> Tensors:
    """Return a CTC head's weights (C, hidden) and (C,) with the last class, MindOCR's blank, as the first."""
    return {name: np.roll(tensors[name], 1, axis=0) for name in ("head.weight", "head.bias") if name in tensors}


def _origin(path: Path, recipe: Recipe) -> Origin:
    if path.suffix not in ORIGINS or not path.is_file():
        raise ValueError(f"{path}: expected a file that is there, of one of {', '.join(ORIGINS)}")
    origin, model = ORIGINS[path.suffix], recipe.model
    rectified = {"svtr_tiny": ("none", "stn")}.get(model.backbone, ("none",))
    if model.backbone not in origin.backbones or model.rectification not in rectified:
        raise ValueError(f"{path}: recipe {recipe.name} has backbone {model.backbone}, rectification "
                         f"{model.rectification}; {path.suffix} files are read for backbone "
                         f"{' or '.join(origin.backbones)} without rectification, svtr_tiny with stn too")  # fmt: skip
    return origin


def _charset(recipe: Recipe, charset: str) -> str:
    """Return the charset of the weights: the order of its characters is the order of their classes."""
    if charset:
        if not charset.endswith(".txt"):
            raise ValueError(f"--charset {charset}: expected a .txt file with one character per line")
        return str(Path(charset).resolve())
    if recipe.data.charset != "lower36":
        raise ValueError(f"--charset is missing: {recipe.data.charset} is this project's own, and the weights' classes "
                         "have the order of the list that they were trained with")  # fmt: skip
    return recipe.data.charset


if __name__ == "__main__":
    main()
