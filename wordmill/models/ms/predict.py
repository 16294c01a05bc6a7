"""Prediction with a trained recogniser."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from wordmill.models.attention import Floats as Floats32
from wordmill.models.attention import attention_of, columns_of_views
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ms.backbones import ViewsCnn
from wordmill.models.ms.decoders import Memory
from wordmill.models.ms.model import EncoderDecoder, Recogniser, build
from wordmill.models.ms.precision import choose_precision, halve
from wordmill.models.ms.rectification import Tps
from wordmill.models.ms.weights import load_weights
from wordmill.models.tps import columns_of
from wordmill.pictures.image import Picture, normalise
from wordmill.recipe.frameworks import check_device
from wordmill.text.beam import Floats, Integers, attention_beam_search, ctc_beam_search
from wordmill.text.decoding import AttentionCodec, CtcCodec, Logits, Reading, codec_of

TARGETS = {"cpu": "CPU", "npu": "Ascend"}


def open_device(device: str) -> None:
    """Choose the device of this process and graph mode; RuntimeError where the device is not there."""
    check_device(device)
    if device not in TARGETS:
        raise RuntimeError(f"device '{device}': MindSpore {ms.__version__} runs on {', '.join(TARGETS)}: "
                           "use one of these, or train.framework pytorch")  # fmt: skip
    try:
        ms.set_device(TARGETS[device])
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"device '{device}': MindSpore {ms.__version__} cannot use it here: {reason}") from None
    ms.set_context(mode=ms.GRAPH_MODE)


class Predictor:
    """A recogniser on one device, in float32 where `amp` is O0."""

    def __init__(self, checkpoint: Checkpoint, device: str, amp: str = "O0") -> None:
        open_device(device)
        half, self.precision = choose_precision(amp, device)
        data = checkpoint.data
        self.middle = data.middle
        self.codec = codec_of(checkpoint.model, data, checkpoint.temperature)
        self.net = build(checkpoint.model, data, self.codec.classes)
        load_weights(self.net, checkpoint.tensors, "checkpoint")
        self.decoder = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith("decoder.")}
        self.net.set_train(False)
        if half:
            halve(self.net, amp)
        # A size left open: the graph is compiled once for all batches.
        shape = [None, data.channels, data.height, data.width]
        self.net.set_inputs(Tensor(shape=shape, dtype=ms.float32))
        self.start, self.step, self.locate = _Start(self.net), _Step(self.net), _Locate(self.net)
        self.locate.set_inputs(Tensor(shape=shape, dtype=ms.float32))
        self.start.set_inputs(Tensor(shape=shape, dtype=ms.float32), Tensor(shape=[None], dtype=ms.int32))

    def __call__(self, images: Picture) -> Logits:
        """Return logits (N, T, classes) float32 of images (N, H, W, C) uint8."""
        logits = self.net(Tensor(normalise(images, self.middle)))
        return np.asarray(logits.asnumpy(), dtype=np.float32)

    def attend(self, images: Picture, logits: Logits) -> Floats32 | None:
        """Return where each step of the logits of images looks, (N, T, columns); None: the recogniser looks nowhere."""
        if not isinstance(self.net, EncoderDecoder):
            return None
        samples = Tensor(np.arange(len(images), dtype=np.int32))
        memory = self.start(Tensor(normalise(images, self.middle)), samples)[0][0].asnumpy()
        return attention_of(self.decoder, np.asarray(memory, np.float32), logits)

    def columns(self, images: Picture) -> Floats32 | None:
        """Return where what is read lies in images, from left to right, (N, columns) in shares; None: as it is read."""
        if isinstance(self.net.backbone, ViewsCnn):
            return columns_of_views(len(images))
        if not isinstance(self.net.rectifier, Tps):
            return None
        points = self.locate(Tensor(normalise(images, self.middle))).asnumpy()
        return columns_of(points, *images.shape[1:3])

    def read(self, images: Picture, beams: int = 1) -> Reading:
        """Return texts and confidences of images (N, H, W, C) uint8, by a beam search with more than one beam."""
        net, codec = self.net, self.codec
        if beams > 1 and isinstance(codec, CtcCodec):
            return ctc_beam_search(self(images), codec, beams)
        if beams > 1 and isinstance(codec, AttentionCodec) and isinstance(net, EncoderDecoder):
            samples = np.repeat(np.arange(len(images), dtype=np.int32), beams)
            memory, hidden = self.start(Tensor(normalise(images, self.middle)), Tensor(samples))
            writer = _Writer(self.step, memory, hidden)
            return attention_beam_search(writer, len(images), codec, beams, net.decoder.steps)
        return codec.decode(self(images))


class _Start(nn.Cell):
    """What a beam search starts from."""

    def __init__(self, net: Recogniser) -> None:
        super().__init__()
        self.net = net

    def construct(self, images: Tensor, samples: Tensor) -> tuple[Memory, Tensor]:
        """Return the decoder's memory and hidden state for hypotheses of the images `samples` (R,)."""
        return self.net.decoder.start(ops.gather(self.net.encode(images), samples, 0))


class _Locate(nn.Cell):
    """Where a rectified recogniser finds its control points."""

    def __init__(self, net: Recogniser) -> None:
        super().__init__()
        self.net = net

    def construct(self, images: Tensor) -> Tensor:
        """Return their places (N, 20, 2) in images."""
        return self.net.rectifier.locate(images)


class _Step(nn.Cell):
    """A step of a beam search."""

    def __init__(self, net: Recogniser) -> None:
        super().__init__()
        self.net = net

    def construct(self, memory: Memory, hidden: Tensor, parents: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Go on with hypotheses `parents` (R,) by `tokens` (R,): log-probabilities (R, classes), hidden states."""
        logits, hidden = self.net.decoder.step(memory, ops.gather(hidden, parents, 0), tokens)
        return ops.log_softmax(logits, axis=1), hidden


class _Writer:
    """A decoder with the state of every hypothesis of a beam search."""

    def __init__(self, step: _Step, memory: Memory, hidden: Tensor) -> None:
        self.step, self.memory, self.hidden = step, memory, hidden

    def __call__(self, parents: Integers, tokens: Integers) -> Floats:
        """Go on with hypotheses `parents` (R,), each by its class of `tokens` (R,): log-probabilities (R, classes)."""
        numbers = (Tensor(array.astype(np.int32)) for array in (parents, tokens))
        likely, self.hidden = self.step(self.memory, self.hidden, *numbers)
        return np.asarray(likely.asnumpy(), dtype=np.float64)
