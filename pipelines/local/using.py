"""The verbs that use a recogniser as it is: read pictures, serve it by HTTP, list what recognisers there are."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pipelines.building import recipe_names, recipe_path
from pipelines.local.evaluating import named_model
from pipelines.output import add_json_option, told_beside
from pipelines.places import ROOT
from wordmill.recipe.arguments import from_nought
from wordmill.recipe.frameworks import leave_room_for_mindspore, prepended

MODEL = "an alias of the recipe's model, NAME@alias or NAME/version, or a .onnx, .mindir or .safetensors file"


def read_folder(options: argparse.Namespace) -> int:
    """Read pictures, print and save what they say; return 1 where one cannot be read."""
    leave_room_for_mindspore()
    from pipelines.local import services
    from wordmill.inference.reading import find_images, left_out_text, open_recogniser, save_readings

    with told_beside(options.json):
        images, others = find_images(Path(options.images))
        recogniser = open_recogniser(named_model(options.model, options.recipe))
    output = Path(options.output) if options.output else services.STATE / "readings.jsonl"
    wrong = save_readings(recogniser, images, output, options.characters, options.alternatives, options.json)
    if not options.json:
        print(output)
    if others:
        print(left_out_text(others), file=sys.stderr)
    if wrong:
        print(f"{wrong} of {len(images)} images cannot be read", file=sys.stderr)
    return 1 if wrong else 0


def become_service(options: argparse.Namespace) -> int:
    """Become the HTTP service of a recogniser."""
    model = named_model(options.model, options.recipe)
    folder = model if model.is_dir() else model.parent
    words = ["--host", options.host, "--port", str(options.port), "--threads", str(options.threads)]
    # -P: a user's folder `components` stands before this one else.
    command = [sys.executable, "-P", "-m", "components.serve", str(folder), *words]
    environment = os.environ | {"PYTHONPATH": prepended("PYTHONPATH", ROOT)}
    os.execve(sys.executable, command, environment)  # noqa: S606 (no shell is wanted)


def list_models(options: argparse.Namespace) -> int:
    """Print every recipe's recogniser in both frameworks."""
    from wordmill.models import table

    paths = [recipe_path(name) for name in options.recipes or recipe_names()]
    table.main([*map(str, paths), "--format", "json" if options.json else "table"])
    return 0


def add_read_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    reads = verbs.add_parser("read", help="read pictures of words, print and save their texts")
    reads.add_argument("images", help="a folder of pictures, a .txt list of their paths, or one picture")
    reads.add_argument("--model", default="champion", help=MODEL)
    reads.add_argument("--recipe", default="quickstart", help="whose champion")
    reads.add_argument("-o", "--output", default="", help="the JSON lines to write, readings.jsonl among the state")
    reads.add_argument("--characters", action="store_true", help="add each character's confidence and place")
    reads.add_argument(
        "--alternatives", type=from_nought, default=0, help="add so many of the likeliest texts; CTC alone"
    )
    add_json_option(reads, "a line for each picture")
    reads.set_defaults(verb=read_folder)


def add_serve_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    parser = verbs.add_parser("serve", help="serve a recogniser by HTTP, with a page to try it")
    parser.add_argument("--model", default="champion", help=f"{MODEL}; its ONNX file is served")
    parser.add_argument("--recipe", default="quickstart", help="whose champion")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at, 127.0.0.1 by default")
    parser.add_argument("--port", type=from_nought, default=8000, help="8000 by default")
    parser.add_argument("--threads", type=from_nought, default=0, help="of the network, one to each core by default")
    parser.set_defaults(verb=become_service)


def add_models_verb(verbs: Any) -> None:
    """Add the verb to a command line's."""
    parser = verbs.add_parser("models", help="list recipes' recognisers in both frameworks")
    parser.add_argument("recipes", nargs="*", help="names or .yaml files, all that come with this by default")
    add_json_option(parser, "the list")
    parser.set_defaults(verb=list_models)
