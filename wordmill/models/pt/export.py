"""Export of a trained recogniser to ONNX."""

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ports import CONFIDENCE, INPUT, LOGITS, TOKENS
from wordmill.models.pt.decoders import Decoder
from wordmill.models.pt.model import EncoderDecoder, Recogniser, build
from wordmill.models.pt.resnet import SamePool
from wordmill.models.pt.weights import load_weights
from wordmill.recipe.rules import check_grid_sample
from wordmill.store.files import atomic_file
from wordmill.text.decoding import AttentionCodec, CtcCodec, codec_of

OPSET = 17

Axes = dict[str, dict[int, str]]  # by input or output: names of the sizes that are left open
Pair = dict[str, dict[str, list[str]]]  # of `encoder` and `step`: names of `inputs` and `outputs`


class _Reader(nn.Module):
    """A recogniser that decodes what it reads as its codec does: logits, tokens and confidences of images."""

    def __init__(self, net: Recogniser, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = net, temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, T, classes), the kept classes (N, T) int64, else 0, and confidences (N,) in 0..1."""
        logits: Tensor = self.net(images)
        best = logits.argmax(2)
        kept = _kept_of_attention(best) if isinstance(self.net, EncoderDecoder) else _kept_of_ctc(best)
        # The likeliest class's log-probability, without that of any other: there may be thousands.
        peaks = logits.amax(2) - logits.logsumexp(2)
        counts = kept.float().sum(1)
        means = (peaks * kept).sum(1) / counts.clamp(min=1.0)  # opset 11 clips no integers
        return logits, best * kept, (means / self.temperature).exp() * counts.clamp(max=1.0)


def _kept_of_ctc(best: Tensor) -> Tensor:
    """Return which steps (N, T) of the likeliest classes (N, T) are characters: as CtcCodec.decode has it."""
    before = torch.cat([torch.full_like(best[:, :1], CtcCodec.BLANK), best[:, :-1]], 1)
    return (best != CtcCodec.BLANK) & (best != before)


def _kept_of_attention(best: Tensor) -> Tensor:
    """Return which steps (N, T) of the likeliest classes (N, T) are characters: as AttentionCodec.decode has it."""
    stops = (best == AttentionCodec.STOP).int().cumsum(1)
    return (stops == 0) & (stops[:, -1:] > 0) & (best != AttentionCodec.GO)


class _Encoder(nn.Module):
    """What a beam search starts from."""

    def __init__(self, net: EncoderDecoder) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the samples' memory, tensors (N, T, C), and the hidden state (N, hidden) of images."""
        memory, hidden = self.net.decoder.start(self.net.encode(images))
        return (*(part for part in memory if part.ndim == 3), hidden)


class _Step(nn.Module):
    """A step of a beam search."""

    def __init__(self, decoder: Decoder, features: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        # What is the same for all samples belongs to the weights and stays within the file.
        self.shared = tuple(part for part in decoder.start(features)[0] if part.ndim < 3)

    def forward(self, tokens: Tensor, hidden: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """Return log-probabilities (R, classes) and hidden states (R, hidden), given the classes (R,) written last."""
        logits, hidden = self.decoder.step((*memory, *self.shared), hidden, tokens)
        return logits.log_softmax(1), hidden


def export_onnx(
    checkpoint: Checkpoint, path: Path, opset: int = OPSET, batch: int | None = None, any_width: bool = False,
    decoded: bool = True,
) -> None:  # fmt: skip
    """Write a checked ONNX file: `images` (N, C, H, W) float32 normalised to `logits` (N, T, classes) float32.

    batch: N, any if not given. any_width: of a CTC recogniser without rectification, T grows with W.
    decoded: `tokens` (N, T) int64 and `confidence` (N,) float32 too, as card.py says.
    """
    net, images = _open(checkpoint, opset, batch or 2)
    outputs = [LOGITS, TOKENS, CONFIDENCE] if decoded else [LOGITS]
    open_axes: Axes = {} if batch else {name: {0: "N"} for name in [INPUT, *outputs]}
    if any_width:
        for part in net.modules():
            if isinstance(part, SamePool):
                part.any_width = True
        open_axes |= {INPUT: {0: "N", 3: "W"}} | {name: {0: "N", 1: "T"} for name in outputs if name != CONFIDENCE}
    _write(
        _Reader(net, checkpoint.temperature) if decoded else net, (images,), path, [INPUT], outputs, opset, open_axes
    )


def export_pair(checkpoint: Checkpoint, encoder: Path, step: Path, opset: int = OPSET) -> Pair:
    """Write an attention recogniser as two ONNX files for a beam search, of any N; return their inputs and outputs.

    The encoder makes `memory_0`, ... (N, T, C) and `hidden` (N, hidden) of `images`; the step makes `log_probabilities`
    (R, classes) and `next_hidden` of `tokens` (R,) int64, `hidden` (R, hidden) and the memory of R hypotheses.
    """
    net, images = _open(checkpoint, opset, 2)
    if not isinstance(net, EncoderDecoder):
        raise ValueError(f"export.beam: model {checkpoint.model.name} has no decoder that a beam search steps through")
    with torch.no_grad():
        *memory, hidden = _Encoder(net)(images)
        stepper = _Step(net.decoder, net.encode(images))
    parts = [f"memory_{number}" for number in range(len(memory))]
    first = {"inputs": [INPUT], "outputs": [*parts, "hidden"]}
    then = {"inputs": [TOKENS, "hidden", *parts], "outputs": ["log_probabilities", "next_hidden"]}
    tokens = torch.full((len(images),), AttentionCodec.GO)
    for module, arguments, path, ports in ((_Encoder(net), (images,), encoder, first),
                                           (stepper, (tokens, hidden, *memory), step, then)):  # fmt: skip
        open_axes = {name: {0: "N"} for name in ports["inputs"] + ports["outputs"]}
        _write(module, arguments, path, ports["inputs"], ports["outputs"], opset, open_axes)
    return {"encoder": first, "step": then}


def _open(checkpoint: Checkpoint, opset: int, batch: int) -> tuple[Recogniser, Tensor]:
    """Return the trained recogniser and empty images (batch, C, H, W); ValueError for an opset that lacks operators."""
    data, model = checkpoint.data, checkpoint.model
    check_grid_sample(opset, model, "export")
    net = build(model, data, codec_of(model, data).classes).eval()
    load_weights(net, checkpoint.tensors, "checkpoint")
    return net, torch.zeros(batch, data.channels, data.height, data.width)


def _write(
    net: nn.Module, arguments: tuple[Tensor, ...], path: Path, inputs: list[str], outputs: list[str], opset: int,
    open_axes: Axes,
) -> None:  # fmt: skip
    """Write a network as a checked ONNX file under a temporary name, then rename it."""
    with atomic_file(path) as temporary:
        with warnings.catch_warnings():
            # It warns that it is deprecated, but CANN's atc does not read what its successor writes (IR 10), and of
            # an LSTM's batch size, which the graph takes from its input's shape.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net, arguments, str(temporary), dynamo=False, opset_version=opset, input_names=inputs,
                output_names=outputs, dynamic_axes=open_axes,
            )  # fmt: skip
        onnx.checker.check_model(str(temporary), full_check=True)
