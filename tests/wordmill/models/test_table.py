import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wordmill.models.table import main, table

RECIPES = Path(__file__).resolve().parents[3] / "pipelines" / "recipes"
# The localisation network of rare_r34_tps: 3x3 convolutions without bias, each with the two vectors of its batch
# normalisation, and two linear layers. On grey pictures it has 1,152 fewer, 1,692,392: by so much the published counts
# of DTRB's recognisers with and without it differ (49,555,182 and 47,862,790).
CONVOLUTIONS = 9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 2 * (64 + 128 + 256 + 512)
TPS = CONVOLUTIONS + (512 * 256 + 256) + (256 * 40 + 40)
# Published 11,843,024 counts one bias for each direction of the four LSTMs (two layers both ways), PyTorch has two.
SEQ2SEQ = 11_843_024 + 4 * 4 * 128
EXPECTED = {  # parameters, steps, classes, input
    "crnn_icdar15": (24_481_029, 25, 37, [3, 32, 100]),
    "crnn_mv3": (1_451_787, 25, 37, [3, 32, 100]),
    "crnn_npu": (8_331_301, 26, 37, [1, 32, 100]),
    "crnn_r34": (24_481_029, 25, 37, [3, 32, 100]),
    "crnn_r34_ch": (22_557_888, 80, 6_624, [3, 32, 320]),
    "crnn_vgg7": (8_725_413, 24, 37, [3, 32, 100]),
    "quickstart": (766_437, 25, 37, [1, 32, 100]),
    "rare_r34": (25_289_478, 26, 38, [3, 32, 100]),
    "rare_r34_ch": (28_889_281, 41, 6_625, [3, 32, 320]),
    "rare_r34_tps": (25_289_478 + TPS, 26, 38, [3, 32, 100]),
    "seq2seq_fsns": (SEQ2SEQ, 64, 10_000, [3, 128, 512]),
    "small": (766_437, 25, 37, [1, 32, 100]),
    "svtr_tiny": (6_021_133, 25, 37, [3, 64, 256]),  # as MindOCR's package counts its own
}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wordmill.models.table", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    done = run(*sorted(RECIPES.glob("*.yaml")), "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_recipe_has_a_row_for_each_framework(rows: list[dict[str, Any]]) -> None:
    named = [(row["recipe"], row["framework"]) for row in rows]
    assert named == [(recipe, framework) for recipe in EXPECTED for framework in ("pytorch", "mindspore")]


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recogniser_has_its_published_size_in_both_frameworks(recipe: str, rows: list[dict[str, Any]]) -> None:
    parameters, steps, classes, shape = EXPECTED[recipe]
    expected = {"parameters": parameters, "steps": steps, "classes": classes, "input_shape": shape}
    found = [row for row in rows if row["recipe"] == recipe]
    assert found == [{"recipe": recipe, "framework": name} | expected for name in ("pytorch", "mindspore")]


def test_the_localisation_network_is_counted_layer_by_layer() -> None:
    assert TPS == 1_693_544
    assert TPS - 9 * 2 * 64 == 49_555_182 - 47_862_790


def test_the_table_is_aligned_under_its_names() -> None:
    row = {"recipe": "crnn", "framework": "pytorch", "parameters": 1234567, "steps": 25, "classes": 37}
    assert table([row | {"input_shape": [3, 32, 100]}, row | {"recipe": "b", "input_shape": [1, 32, 100]}]) == (
        "recipe  framework  parameters  steps  classes  input_shape\n"
        "crnn    pytorch     1,234,567     25       37     3x32x100\n"
        "b       pytorch     1,234,567     25       37     1x32x100"
    )


def test_a_wrong_recipe_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: .*none.yaml: no such file"):
        main([str(tmp_path / "none.yaml")])


def test_a_recogniser_that_cannot_be_built_is_told_by_the_process_that_tried(tmp_path: Path) -> None:
    text = (RECIPES / "quickstart.yaml").read_text(encoding="utf-8")
    (tmp_path / "tall.yaml").write_text(text.replace("height: 32", "height: 40"), encoding="utf-8")
    done = run(tmp_path / "tall.yaml", "--format", "json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "error: data.height is 40, expected 32 or 48" in done.stderr
    assert done.stderr.rstrip().endswith(
        "error: pytorch: the process that builds the recognisers ended with code 1: see above"
    )
