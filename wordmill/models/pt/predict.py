"""Prediction with a trained recogniser."""

import importlib

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wordmill.models.attention import Floats as Floats32
from wordmill.models.attention import attention_of, columns_of_views
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.pt.backbones import ViewsCnn
from wordmill.models.pt.decoders import Decoder
from wordmill.models.pt.model import EncoderDecoder, build
from wordmill.models.pt.precision import choose_precision
from wordmill.models.pt.rectification import Tps
from wordmill.models.pt.weights import load_weights
from wordmill.models.pt.winograd import use_winograd
from wordmill.models.tps import columns_of
from wordmill.pictures.image import Picture
from wordmill.recipe.frameworks import check_device, keep_freed_memory
from wordmill.text.beam import Floats, Integers, attention_beam_search, ctc_beam_search
from wordmill.text.decoding import AttentionCodec, CtcCodec, Logits, Reading, codec_of


def open_device(device: str, index: int = 0) -> torch.device:
    """Return one device of the kind that was asked for; RuntimeError where it is not there."""
    check_device(device)
    if device == "npu":
        try:
            importlib.import_module("torch_npu")
        except ImportError as error:
            raise RuntimeError(f"device 'npu': torch_npu cannot be imported ({error}): install it with CANN") from None
    if device == "cpu":
        keep_freed_memory()  # MindSpore has a pool of its own
        return torch.device("cpu")
    found = torch.get_device_module(device).device_count()
    if index >= found:
        raise RuntimeError(f"device '{device}' number {index}: PyTorch {torch.__version__} sees {found} of them")
    torch.get_device_module(device).set_device(index)
    if device == "cuda":
        _keep_float32()
    return torch.device(device, index)


def _keep_float32() -> None:
    """Have cuDNN compute what is float32 in float32: by default it is TF32, with three digits."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # unknown to PyTorch's types
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]  # as well


class Predictor:
    """A recogniser on one device, in float32 where `amp` is O0."""

    def __init__(self, checkpoint: Checkpoint, device: str, amp: str = "O0") -> None:
        self.device, self.middle = open_device(device), checkpoint.data.middle
        self.dtype, self.precision = choose_precision(amp, device)
        self.codec = codec_of(checkpoint.model, checkpoint.data, checkpoint.temperature)
        self.net = build(checkpoint.model, checkpoint.data, self.codec.classes)
        load_weights(self.net, checkpoint.tensors, "checkpoint")
        self.decoder = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith("decoder.")}
        _fold_normalisation(self.net.eval())
        if device == "cpu" and self.dtype == torch.float32:
            use_winograd(self.net)
        self.net.to(self.device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # lacks this form of `to`

    def __call__(self, images: Picture) -> Logits:
        """Return logits (N, T, classes) float32 of images (N, H, W, C) uint8."""
        with torch.inference_mode(), self._autocast():
            logits = self.net(self._inputs(images))
        return np.asarray(logits.cpu().numpy(), dtype=np.float32)

    def attend(self, images: Picture, logits: Logits) -> Floats32 | None:
        """Return where each step of the logits of images looks, (N, T, columns); None: the recogniser looks nowhere."""
        if not isinstance(self.net, EncoderDecoder):
            return None
        with torch.inference_mode(), self._autocast():
            memory = self.net.decoder.start(self.net.encode(self._inputs(images)))[0][0].float().cpu().numpy()
        return attention_of(self.decoder, np.asarray(memory, np.float32), logits)

    def columns(self, images: Picture) -> Floats32 | None:
        """Return where what is read lies in images, from left to right, (N, columns) in shares; None: as it is read."""
        if isinstance(self.net.backbone, ViewsCnn):
            return columns_of_views(len(images))
        if not isinstance(self.net.rectifier, Tps):
            return None
        with torch.inference_mode(), self._autocast():
            points = self.net.rectifier.locate(self._inputs(images)).cpu().numpy()
        return columns_of(points, *images.shape[1:3])

    def read(self, images: Picture, beams: int = 1) -> Reading:
        """Return texts and confidences of images (N, H, W, C) uint8, by a beam search with more than one beam."""
        net, codec = self.net, self.codec
        if beams > 1 and isinstance(codec, CtcCodec):
            return ctc_beam_search(self(images), codec, beams)
        if beams > 1 and isinstance(codec, AttentionCodec) and isinstance(net, EncoderDecoder):
            with torch.inference_mode(), self._autocast():
                writer = _Writer(net.decoder, net.encode(self._inputs(images)), beams)
                return attention_beam_search(writer, len(images), codec, beams, net.decoder.steps)
        return codec.decode(self(images))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _inputs(self, images: Picture) -> Tensor:
        # As `normalise` has it, on the device: a quarter of the bytes travel, and they come out as channels_last.
        pictures = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return (pictures.float() - self.middle) / self.middle


def _fold_normalisation(net: nn.Module) -> None:
    """Work each batch normalisation into the convolution before it, of the same name, as evaluation allows."""
    for part in net.modules():
        for name, norm in list(part.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                before = name.replace("bn", "conv")
                convolution: nn.Conv2d = getattr(part, before)
                setattr(part, before, fuse_conv_bn_eval(convolution, norm))
                setattr(part, name, nn.Identity())


class _Writer:
    """A decoder with the state of every hypothesis of a beam search."""

    def __init__(self, decoder: Decoder, features: Tensor, beams: int) -> None:
        self.decoder = decoder
        self.memory, self.hidden = decoder.start(features.repeat_interleave(beams, 0))

    def __call__(self, parents: Integers, tokens: Integers) -> Floats:
        """Go on with hypotheses `parents` (R,), each by its class of `tokens` (R,): log-probabilities (R, classes)."""
        device = self.hidden.device
        hidden = self.hidden[torch.from_numpy(parents).to(device)]
        logits, self.hidden = self.decoder.step(self.memory, hidden, torch.from_numpy(tokens).to(device))
        return np.asarray(logits.log_softmax(1).cpu().numpy(), dtype=np.float64)
