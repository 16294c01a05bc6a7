import subprocess
import sys
from pathlib import Path

import pytest

# Where a verb asks for a recogniser or a recipe, it loads protobuf, as kfp and MLflow do, and then the MindSpore twins.
PROGRAM = """
import sys
from argparse import Namespace
from {module} import {verb}
import {module} as module

def load(*given):
    import google.protobuf.descriptor
    import wordmill.models.ms
    sys.exit(0)

module.{asks} = load
{verb}(Namespace(images={folder!r}, json=False, protocol="", recipe="quickstart", model="champion", most_wrong=0.02))
"""


@pytest.mark.parametrize(
    ("module", "verb", "asks"),
    [
        ("pipelines.local.using", "read_folder", "named_model"),
        ("pipelines.local.evaluating", "evaluate_model", "load_recipe"),
        ("pipelines.local.own.pseudo", "pseudo_label", "named_model"),
        ("pipelines.local.own.tuning", "tune", "load_recipe"),
    ],
)
def test_recognisers_in_mindspore_open_behind_what_loads_protobuf(
    module: str, verb: str, asks: str, tmp_path: Path
) -> None:
    (tmp_path / "1.png").touch()
    program = PROGRAM.format(module=module, verb=verb, asks=asks, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
