"""Import of published weights: `python -m wordmill.models.convert FILE --recipe RECIPE.yaml --output FILE`.

Of MindOCR (.ckpt), CRNN and DTRB (.pth) and PaddleOCR (.pdparams): wordmill/models/origins.py says which, and what is
put right in them. No file is run: .pth are read with PyTorch's weights_only, .pdparams by wordmill/models/pdparams.py.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wordmill.models import checkpoint
from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.models.origins import ORIGINS, Origin, origin_of, reason_against, renamed
from wordmill.models.pdparams import read_pdparams
from wordmill.recipe.frameworks import twin
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe
from wordmill.text.charset import unusual
from wordmill.text.decoding import codec_of

# What MindOCR's training states hold beside the weights: copies of them by prefix, and single values.
TRAINING_STATE = re.compile(
    r"(adam_[mv]|lion_m|nadam_[mv]|moment\w*|moments|accum|stat|ema|swap|grad_accumulated_|zeros_)\..*"
    r"|(beta[12]_power|global_step|learning_rate\w*|epoch_num|loss_scale|scale_sense|mu_schedule|updates"
    r"|grad_accumulate_step_|\w+_iterator_step)"
)


def main(arguments: list[str] | None = None) -> None:
    """Convert one file; what is wrong with it ends in one line and code 1."""
    parser = argparse.ArgumentParser(prog="python -m wordmill.models.convert", description=__doc__)
    parser.add_argument("file", type=Path, help="MindOCR's .ckpt, CRNN's or DTRB's .pth, PaddleOCR's .pdparams")
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe file of the recogniser")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe value")
    parser.add_argument("--charset", default="", help="a .txt file with the characters that the weights know, in order")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    options = parser.parse_args(arguments)
    try:
        recipe = load_recipe(options.recipe, tuple(options.set))
        print(convert(options.file, recipe, options.charset, options.output))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def convert(path: Path, recipe: Recipe, charset: str, output: Path) -> str:
    """Write the weights of a published file as a checkpoint of the recipe, and return what was done as text."""
    framework = _framework(path, recipe)
    if output.suffix != ".safetensors" or not output.parent.is_dir():
        raise ValueError(f"--output {output}: expected a .safetensors file in a folder that is there")
    data = dataclasses.replace(recipe.data, charset=_charset(recipe, charset))
    found = read_pdparams(path) if path.suffix == ".pdparams" else twin(framework, "models.foreign").read(path)
    weights = {name: values for name, values in found.items() if not TRAINING_STATE.fullmatch(name)}
    origin = _origin(path, recipe, weights)
    tensors = _by_our_names(path, origin, weights)
    moved = path.suffix == ".ckpt" and recipe.model.name == "crnn"
    if moved:
        tensors |= blank_first(tensors)
    net = twin(framework, "models.model").build(recipe.model, data, codec_of(recipe.model, data).classes)
    expected = twin(framework, "models.weights").dump(net)
    checkpoint.check_fit({name: values.shape for name, values in expected.items()}, tensors, str(path))
    made = Checkpoint(tensors=tensors, data=data, model=recipe.model, train=recipe.train, step=0)
    checkpoint.save(output, made)
    size = sum(values.size for name, values in tensors.items() if ".running_" not in name)
    left_out = len(found) - len(weights)
    notes = f"; {left_out} values of the training's state left out" if left_out else ""
    notes += "; the blank moved from the last class to the first" if moved else ""
    notes += f"; {origin.note}" if origin.note else ""
    notes += f"; {told}" if (told := unusual(data.charset)) else ""
    return f"{output}: {recipe.name} with {size:,} parameters of {path}{notes}"


def blank_first(tensors: Tensors) -> Tensors:
    """Return a CTC head's weights (C, hidden) and (C,) with the last class, MindOCR's blank, as the first."""
    return {name: np.roll(tensors[name], 1, axis=0) for name in ("head.weight", "head.bias") if name in tensors}


def _framework(path: Path, recipe: Recipe) -> str:
    """Return the framework that reads a file and builds its recogniser; ValueError for a recipe that none fits."""
    origins, model = [origin for origin in ORIGINS.values() if origin.ending == path.suffix], recipe.model
    if not origins or not path.is_file():
        endings = dict.fromkeys(origin.ending for origin in ORIGINS.values())
        raise ValueError(f"{path}: expected a file that is there, of one of {', '.join(endings)}")
    backbones = [backbone for origin in origins for backbone in origin.backbones]
    rectified = {"svtr_tiny": ("none", "stn")}.get(model.backbone, ("none",))
    if model.backbone not in backbones or model.rectification not in rectified:
        raise ValueError(f"{path}: recipe {recipe.name} has backbone {model.backbone}, rectification "
                         f"{model.rectification}; {path.suffix} files are read for backbone "
                         f"{' or '.join(backbones)} without rectification, svtr_tiny with stn too")  # fmt: skip
    return origins[0].framework


def _origin(path: Path, recipe: Recipe, names: Iterable[str]) -> Origin:
    """Return where a file's weights come from; ValueError naming those that no recipe, or not this one, takes."""
    origin = origin_of(path.suffix, names)
    if origin is None:
        known = " or ".join(name for name, one in ORIGINS.items() if one.ending == path.suffix)
        raise ValueError(f"{path}: none of its weights has a name that {known} gives: {checkpoint.names_text(names)}")
    for name in names:
        if reason := reason_against(name, origin):
            alike = [other for other in names if reason_against(other, origin) == reason]
            raise ValueError(f"{path}: {checkpoint.names_text(alike)}: fits no recipe: {reason}")
    if recipe.model.backbone not in origin.backbones:
        raise ValueError(f"{path}: its weights are for backbone {' or '.join(origin.backbones)}, recipe {recipe.name} "
                         f"has {recipe.model.backbone}: --set model.backbone={origin.backbones[0]}")  # fmt: skip
    return origin


def _by_our_names(path: Path, origin: Origin, weights: Tensors) -> Tensors:
    """Return weights under this project's names, their layout put right."""
    prepared = origin.prepare(weights)
    tensors = {renamed(name, origin): values for name, values in prepared.items()}
    if len(tensors) < len(prepared):
        raise ValueError(f"{path}: {len(prepared)} weights have {len(tensors)} names here: expected one scheme of "
                         "names")  # fmt: skip
    return tensors


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
