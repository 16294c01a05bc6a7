"""MindOCR's recognisers as contenders, from its package, with what MindSpore 2.9 takes to import and run them.

Three changes to MindOCR 0.5.0: parts that it imports and recognisers do not use are stood in for (its ABINet needs
`mindspore.parallel._transformer`, which MindSpore 2.9 has no more), everything computes in float32 as on a processor
it must, and its LSTM too, which it casts to float16.
"""

import sys
from types import ModuleType
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt

from benchmarks.contender import Contender, made_pictures, made_words
from wordmill.pictures.image import normalise
from wordmill.recipe.sections import Recipe
from wordmill.text.charset import charset_of
from wordmill.text.decoding import codec_of

UNUSED = (
    "mindspore.parallel._transformer",
    "mindspore.parallel._transformer.layers",
    "mindspore.parallel._transformer.moe",
    "mindspore.parallel._transformer.op_parallel_config",
    "mindspore.parallel._transformer.transformer",
    "mindocr.data",
    "mindocr.data.constants",
    "mindocr.metrics",
    "mindocr.postprocess",
    "mindocr.models.backbones.layoutxlm",
    "mindocr.models.backbones.layoutxlm.configuration",
    "mindocr.models.backbones.layoutlmv3",
    "mindocr.models.backbones.layoutlmv3.configuration",
    "mindocr.models.kie_layoutxlm",
    "mindocr.utils.visualize",
)


class Nothing:
    """What an unused name stands for: a base class, or a decorator that takes arguments."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, decorated: Any) -> Any:
        """Decorate nothing."""
        return decorated


class StandIn(ModuleType):
    """A module in which every name is `Nothing`."""

    __all__: list[str] = []  # noqa: RUF012
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> type[Nothing]:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


for unused in UNUSED:
    sys.modules[unused] = StandIn(unused)

from mindocr.losses import build_loss  # type: ignore[import-not-found]  # noqa: E402
from mindocr.models import build_model  # type: ignore[import-not-found]  # noqa: E402
from mindocr.optim import create_optimizer  # type: ignore[import-not-found]  # noqa: E402
from mindocr.utils.model_wrapper import NetWithLossWrapper  # type: ignore[import-not-found]  # noqa: E402
from mindocr.utils.train_step_wrapper import TrainOneStepWrapper  # type: ignore[import-not-found]  # noqa: E402

ATTENTION = {"name": "AttentionHead", "hidden_size": 256}
CTC = {"name": "CTCHead", "weight_init": "crnn_customised", "bias_init": "crnn_customised"}
BACKBONES = {"vgg7": "rec_vgg7", "resnet34_vd": "rec_resnet34"}
STOP, FIRST = 1, 2  # classes of the attention head: 0 is GO and padding, the characters follow STOP


def build(recipe: Recipe, classes: int) -> Any:
    """Build MindOCR's twin of a recipe's recogniser, in float32; its neck always has two layers."""
    model = recipe.model
    head = CTC if model.name == "crnn" else ATTENTION | {"batch_max_length": model.max_length}
    net = build_model(
        {
            "backbone": {"name": BACKBONES[model.backbone], "pretrained": False},
            "neck": {"name": "RNNEncoder", "hidden_size": model.hidden},
            "head": head | {"out_channels": classes},
        }
    )
    net.neck.seq_encoder.to_float(ms.float32)
    net.neck.encoder_cast_to_fp16 = False
    return net


def labels_of(recipe: Recipe, steps: int, batch: int) -> npt.NDArray[np.int32]:
    """Return targets as MindOCR pads them: CTC's with the blank, the last class; GO + word + STOP + zeros."""
    words = made_words(recipe, batch)
    symbols = charset_of(recipe.data).symbols
    attends = recipe.model.name != "crnn"
    rows = np.full((batch, steps + 1 if attends else steps - 1), 0 if attends else len(symbols), dtype=np.int32)
    for row, word in zip(rows, words, strict=True):
        numbers = [symbols.index(symbol) for symbol in word]
        if attends:
            row[1 : len(word) + 2] = [*(number + FIRST for number in numbers), STOP]
        else:
            row[: len(word)] = numbers
    return rows


def contender(recipe: Recipe, mode: str, batch: int, device: str) -> Contender:
    """Return one training step by MindOCR's own step, loss and AdamW, or one batch's prediction."""
    if device != "cpu":
        raise RuntimeError(f"device '{device}': MindSpore {ms.__version__} measures on cpu alone here")
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    attends = recipe.model.name != "crnn"
    net = build(recipe, codec_of(recipe.model, recipe.data).classes)
    images = ms.Tensor(normalise(made_pictures(recipe, batch), recipe.data.middle))
    if mode == "inference":
        net.set_train(False)
        return Contender(lambda: net(images).asnumpy())
    # VGG7 loses a column to its last convolution.
    steps = recipe.model.max_length + 1 if attends else recipe.data.width // 4 - (recipe.model.backbone == "vgg7")
    if attends:
        loss = build_loss("AttentionLoss")
        wrapped = NetWithLossWrapper(net, loss, input_indices=[0, 1], label_indices=[1])
    else:
        loss = build_loss("CTCLoss", pred_seq_len=steps, max_label_len=steps - 1, batch_size=batch)
        wrapped = NetWithLossWrapper(net, loss)
    optimizer = create_optimizer(net.trainable_params(), opt="adamw", lr=1e-4, weight_decay=recipe.train.weight_decay)
    step = TrainOneStepWrapper(wrapped, optimizer, scale_sense=ms.Tensor(1.0), drop_overflow_update=False).set_train()
    labels = ms.Tensor(labels_of(recipe, steps, batch))
    return Contender(lambda: step(images, labels)[0].asnumpy())
