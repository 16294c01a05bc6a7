import pytest
import torch
from torch.nn.functional import one_hot

from tests.wordmill.models.pt.half import bfloat16, half_kernels
from wordmill.models.pt.decoders import Decoder, GruAttention, PositionAttention
from wordmill.models.pt.layers import Dropout

pytestmark = pytest.mark.arithmetic


def parameters(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def decoder_of(kind: type[Decoder]) -> Decoder:
    """Return a small decoder of 5 steps and 7 classes whose readings vary, in evaluation mode."""
    torch.manual_seed(4)
    net = kind(6, 8, 7, 5).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(3)
    return net


KINDS = pytest.mark.parametrize("kind", [GruAttention, PositionAttention])


def test_the_decoders_have_the_published_sizes() -> None:
    assert parameters(GruAttention(512, 256, 38, 26)) == 827_430
    assert parameters(GruAttention(128, 256, 6625, 41)) == 7_185_889
    position = PositionAttention(256, 128, 10_000, 64)
    assert parameters(position.bridge) == 32_896
    assert parameters(position) - 32_896 == 2_718_416


def test_rares_step_is_additive_attention_and_a_gru_cell_fed_one_hot_tokens() -> None:
    torch.manual_seed(1)
    net, features, hidden, tokens = (
        GruAttention(6, 8, 7, 5),
        torch.randn(3, 4, 6),
        torch.randn(3, 8),
        torch.tensor([0, 6, 2]),
    )
    energies = torch.tanh(features @ net.i2h.weight.T + (hidden @ net.h2h.weight.T + net.h2h.bias)[:, None])
    scores = (energies * net.score.weight[0]).sum(2)
    weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    context = torch.stack(
        [sum(w * row for w, row in zip(ws, rows, strict=True)) for ws, rows in zip(weights, features, strict=True)]
    )
    expected = net.gru(torch.cat([context, one_hot(tokens, 7).float()], 1), hidden)
    memory, start = net.start(features)
    logits, found = net.step(memory, hidden, tokens)
    assert not start.any()
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(logits, expected @ net.generator.weight.T + net.generator.bias, atol=1e-6)


def test_the_seq2seq_step_attends_by_position() -> None:
    torch.manual_seed(2)
    net, features, hidden, tokens = (
        PositionAttention(6, 8, 7, 5).eval(),
        torch.randn(3, 5, 6),
        torch.randn(3, 8),
        torch.tensor([0, 6, 2]),
    )
    embedded = net.embedding.weight[tokens]
    scores = torch.cat([embedded, hidden], 1) @ net.attention.weight.T + net.attention.bias
    weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    bridged = features @ net.bridge.weight.T + net.bridge.bias
    context = torch.stack(
        [sum(w * row for w, row in zip(ws, rows, strict=True)) for ws, rows in zip(weights, bridged, strict=True)]
    )
    inputs = (torch.cat([embedded, context], 1) @ net.combine.weight.T + net.combine.bias).clamp(min=0)
    expected = net.gru(inputs, hidden)
    logits, found = net.step(net.start(features)[0], hidden, tokens)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(logits, expected @ net.generator.weight.T + net.generator.bias, atol=1e-6)


@KINDS
def test_each_step_is_fed_the_truth_or_the_decoders_own_reading(kind: type[Decoder]) -> None:
    net, features = decoder_of(kind), torch.randn(4, 5, 6)
    classes = torch.tensor([[3, 2, 1, 0, 0], [5, 5, 5, 5, 1], [1, 0, 0, 0, 0], [2, 6, 4, 1, 0]], dtype=torch.int32)
    with torch.no_grad():
        free, told = net(features), net(features, classes, torch.ones(4))
        for logits, fed in ((free, free.argmax(2)), (told, classes)):
            memory, hidden = net.start(features)
            tokens = torch.cat([torch.zeros(4, 1, dtype=torch.int64), fed[:, :-1]], 1)
            for step in range(5):
                row, hidden = net.step(memory, hidden, tokens[:, step])
                assert torch.allclose(row, logits[:, step], atol=1e-6)
        mixed = net(features, classes, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert (free.argmax(2)[:, :-1] != classes[:, :-1]).any(1).all()
    assert torch.allclose(mixed[[1, 2]], told[[1, 2]])
    assert torch.allclose(mixed[[0, 3]], free[[0, 3]])
    assert (told[:, -1] - free[:, -1]).abs().amax(1).min() > 1e-3


@KINDS
def test_the_first_step_does_not_know_the_label(kind: type[Decoder]) -> None:
    net, features = decoder_of(kind), torch.randn(2, 5, 6)
    first, second = (net(features, torch.full((2, 5), number), torch.ones(2)) for number in (2, 3))
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.allclose(first[:, 1], second[:, 1])


@KINDS
def test_under_autocast_decoders_compute_in_float32(kind: type[Decoder]) -> None:
    net, features = decoder_of(kind), torch.randn(2, 5, 6).bfloat16()
    with half_kernels(torch.bfloat16):
        expected = net(features.float())
    with bfloat16():
        found = net(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_dropout_falls_on_the_embedded_characters_of_each_step_in_training_only() -> None:
    net, features, seeds = decoder_of(PositionAttention), torch.randn(2, 5, 6), torch.tensor([3, 4], dtype=torch.int32)
    whole = net(features)
    assert torch.equal(net(features, seeds=seeds), whole)
    found = net.train()(features, seeds=seeds)
    assert torch.equal(net(features, seeds=seeds), found)
    assert not torch.allclose(net(features, seeds=seeds + 1), found)
    memory, hidden = net.start(features)
    tokens = torch.zeros(2, dtype=torch.int64)
    for step in range(5):
        ones = torch.ones(2, 8)
        mask = Dropout(0.1)(ones, seeds, 1 + step)
        row, hidden = net.step(memory, hidden, tokens, mask)
        assert torch.allclose(row, found[:, step], atol=1e-6)
        tokens = row.argmax(1)


def test_rares_decoder_has_no_dropout() -> None:
    net, features = decoder_of(GruAttention).train(), torch.randn(2, 5, 6)
    assert torch.equal(net(features, seeds=torch.tensor([3, 4], dtype=torch.int32)), net(features))
