import dataclasses

import pytest

from tests.wordmill.models.ms import COMPACT, DATA, ms  # isort: skip  # before anything imports MindSpore
from mindspore import nn

from wordmill.models.ms.model import build
from wordmill.models.ms.precision import choose_precision, halve
from wordmill.training.ms.losses import SequenceLosses
from wordmill.training.ms.step import Objective

RARE = dataclasses.replace(COMPACT, name="rare", rectification="tps", neck="bilstm_linked", layers=2, max_length=4,
                           decoder_hidden=16)  # fmt: skip


def test_precision_is_told_as_it_is() -> None:
    assert choose_precision("O0", "npu") == (False, "float32")
    assert choose_precision("O3", "cpu") == (
        False, f"float32: MindSpore {ms.__version__} has no fast half precision on processors")  # fmt: skip
    assert choose_precision("O1", "npu") == (True, "float16 convolutions and dense layers, all else in float32")
    assert choose_precision("O2", "npu") == (True, "float16 backbone, batch normalisation in float32")
    assert choose_precision("O3", "npu") == (True, "float16 backbone, batch normalisation in float16")


def half_of(amp: str) -> dict[str, set[bool]]:
    """Return of each kind of layer in each part of a recogniser whether it is cast to float16, else to float32."""
    net = build(RARE, DATA[1], 38)
    halve(net, amp)
    found: dict[str, set[bool]] = {}
    for name, cell in Objective(net, DATA[1].middle).cells_and_names():
        if isinstance(cell, nn.Conv2d | nn.Dense | nn.BatchNorm2d | nn.LSTM | nn.GRUCell | SequenceLosses):
            kind = f"{name.removeprefix('net.').partition('.')[0]} {type(cell).__name__}"
            found.setdefault(kind, set()).add(cell.get_flags().get("fp16", False))
    return found


@pytest.mark.parametrize(
    ("amp", "expected"),
    [
        ("O1", {"rectifier Conv2d", "rectifier Dense", "backbone Conv2d", "neck Dense"}),
        ("O2", {"backbone Conv2d"}),
        ("O3", {"backbone Conv2d", "backbone BatchNorm2d"}),
    ],
)
def test_each_level_has_its_layers_in_float16(amp: str, expected: set[str]) -> None:
    found = half_of(amp)
    rest = {"rectifier BatchNorm2d", "neck LSTM", "decoder Dense", "decoder GRUCell", "losses SequenceLosses",
            "written_losses SequenceLosses"}  # fmt: skip
    assert set(found) == expected | rest | {"rectifier Conv2d", "rectifier Dense", "backbone Conv2d",
                                            "backbone BatchNorm2d", "neck Dense"}  # fmt: skip
    assert all(len(casts) == 1 for casts in found.values())
    assert {kind for kind, (half,) in found.items() if half} == expected
