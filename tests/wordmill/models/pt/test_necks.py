import pytest
import torch

from tests.wordmill.models.pt.half import bfloat16
from wordmill.models.pt.necks import BiLstm, BiLstmLinked
from wordmill.models.pt.precision import choose_precision

pytestmark = pytest.mark.arithmetic

RECURRENT = (BiLstm, BiLstmLinked)


@pytest.mark.parametrize("kind", RECURRENT)
def test_necks_read_columns_in_both_directions(kind: type[BiLstm] | type[BiLstmLinked]) -> None:
    torch.manual_seed(1)
    neck = kind(3, 2, 1)
    x = torch.randn(1, 3, 1, 6)
    changed = x.clone()
    changed[:, :, :, 3] += 1
    moved = (neck(x) - neck(changed)).abs()[0] > 1e-7
    assert moved[:, :2].any(dim=1).tolist() == [False, False, False, True, True, True]
    assert moved[:, 2:].any(dim=1).tolist() == [True, True, True, True, False, False]


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("amp", ["O0", "O2"])
def test_necks_give_float32_rows_of_twice_the_hidden_size_in_the_precision_of_this_processor(
    amp: str, kind: type[BiLstm] | type[BiLstmLinked]
) -> None:
    neck, dtype = kind(7, 5, 2), choose_precision(amp, "cpu")[0]
    assert neck.channels == 10
    computed: set[torch.dtype] = set()
    for part in neck.modules():
        if isinstance(part, torch.nn.LSTM):
            part.register_forward_hook(lambda _, __, outputs: computed.add(outputs[0].dtype))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        features = neck(torch.randn(3, 7, 1, 4))
    torch.autograd.backward(features.sum())
    assert (features.shape, features.dtype, computed) == ((3, 4, 10), torch.float32, {dtype})
    assert all(weight.grad.dtype == torch.float32 and weight.grad.any() for weight in neck.parameters())


@pytest.mark.parametrize("kind", RECURRENT)
def test_necks_give_nearly_the_same_in_bfloat16(kind: type[BiLstm] | type[BiLstmLinked]) -> None:
    torch.manual_seed(1)
    neck, columns = kind(7, 5, 2), torch.randn(3, 7, 1, 4)
    with torch.no_grad():
        whole = neck(columns)
        with bfloat16():
            half = neck(columns)
    assert (half.shape, half.dtype) == (whole.shape, torch.float32)
    assert 1e-5 < (half - whole).abs().max() < 0.02


@pytest.mark.parametrize(
    ("neck", "parameters"),
    [
        (BiLstm(512, 256, 2), 3_153_920),
        (BiLstmLinked(512, 256, 2), 1_576_960 + 131_328 + 1_052_672),
        (BiLstmLinked(128, 128, 2), 2 * (2 * 4 * 128 * (128 + 128 + 2)) + 128 * 257),
    ],
)
def test_necks_have_the_published_size(neck: torch.nn.Module, parameters: int) -> None:
    assert sum(weight.numel() for weight in neck.parameters()) == parameters


def lstm(columns: torch.Tensor, weights: dict[str, torch.Tensor], side: str) -> torch.Tensor:
    """Write out the LSTM (gates input, forget, cell, output) over columns (T, N, C) from the first to the last."""
    outputs: list[torch.Tensor] = []
    hidden = cell = torch.zeros(columns.shape[1], weights[f"weight_hh_l0{side}"].shape[1])
    for column in columns:
        gates = column @ weights[f"weight_ih_l0{side}"].T + weights[f"bias_ih_l0{side}"]
        gates = gates + hidden @ weights[f"weight_hh_l0{side}"].T + weights[f"bias_hh_l0{side}"]
        gate_in, forget, new, out = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + gate_in.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs)


def test_linked_lstms_have_a_linear_layer_between_them_and_none_after_the_last() -> None:
    torch.manual_seed(2)
    neck = BiLstmLinked(6, 4, 3)
    weights = neck.state_dict()
    x = torch.randn(2, 6, 1, 5)
    columns = x[:, :, 0].permute(2, 0, 1)
    for i in range(3):
        own = {name.removeprefix(f"rnns.{i}."): tensor for name, tensor in weights.items()}
        both = (lstm(columns, own, ""), lstm(columns.flip(0), own, "_reverse").flip(0))
        columns = torch.cat(both, dim=2)
        if i < 2:
            columns = columns @ weights[f"linears.{i}.weight"].T + weights[f"linears.{i}.bias"]
    assert torch.allclose(neck(x), columns.permute(1, 0, 2), atol=1e-6)
