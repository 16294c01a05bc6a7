"""The recognisers in MindSpore."""

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal, Zero, initializer

from wordmill.models.architectures import GUIDE_HIDDEN, STN_MAKES, SVTR_HEAD, VIEWS_DROPOUT, check_size, seen_size
from wordmill.models.ms.backbones import Backbone, ViewsCnn, build_backbone
from wordmill.models.ms.decoders import Decoder, GruAttention, PositionAttention
from wordmill.models.ms.layers import Dropout
from wordmill.models.ms.necks import NECKS, Neck
from wordmill.models.ms.rectification import RECTIFIERS, Stn
from wordmill.models.ms.svtr import SvtrTiny
from wordmill.recipe.sections import Data, Model


class CRNN(nn.Cell):
    """Shi et al. 2015 (arXiv 1507.05717) and its kin: backbone, neck and a linear head that CTC reads."""

    def __init__(self, rectifier: nn.Cell, backbone: Backbone, neck: Neck, classes: int) -> None:
        super().__init__()
        self.rectifier, self.backbone, self.neck = rectifier, backbone, neck
        self.head = nn.Dense(neck.channels, classes)
        self.drops = isinstance(backbone, SvtrTiny)  # of which layers are left out while training
        self.guided = False

    def construct(
        self, images: Tensor, seeds: Tensor | None = None, told: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, T, classes) float32 of normalised images (N, C, H, W) float32.

        While training, what the backbone leaves out goes by seeds (N,) int32. With a guide and what it is told,
        classes (N, T + 1) int32 of an attention decoder, its logits (N, T + 1, classes + 1) too.
        """
        images = self.rectifier(images)
        features = self.neck(self.backbone(images, seeds) if self.drops else self.backbone(images))
        if self.guided and told is not None:
            return self.head(features), self.guide(features, told, ops.ones_like(told[:, 0]))
        return self.head(features)


class EncoderDecoder(nn.Cell):
    """RARE (Shi et al. 2016, arXiv 1603.03915) and its kin: a decoder writes what the backbone and the neck encode."""

    def __init__(self, rectifier: nn.Cell, backbone: Backbone, neck: Neck, decoder: Decoder) -> None:
        super().__init__()
        self.rectifier, self.backbone, self.neck, self.decoder = rectifier, backbone, neck, decoder
        self.dropout = Dropout(VIEWS_DROPOUT) if isinstance(backbone, ViewsCnn) else None
        self.drops = isinstance(backbone, SvtrTiny)

    def encode(self, images: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return features (N, T, channels) float32 of normalised images (N, C, H, W) float32.

        While training, dropout goes by seeds (N,) int32.
        """
        images = self.rectifier(images)
        features = self.backbone(images, seeds) if self.drops else self.backbone(images)
        if self.dropout is not None and seeds is not None:
            features = self.dropout(features, seeds, 0)
        return self.neck(features)

    def construct(
        self, images: Tensor, classes: Tensor | None = None, forced: Tensor | None = None, seeds: Tensor | None = None
    ) -> Tensor:
        """Return logits (N, steps, classes) float32; Decoder says what classes, `forced` and seeds do."""
        return self.decoder(self.encode(images, seeds), classes, forced, seeds)


Recogniser = CRNN | EncoderDecoder


def build(model: Model, data: Data, classes: int) -> Recogniser:
    """Build the recogniser of a recipe with fresh weights, in training mode; ValueError for a height not taken."""
    check_size(model, data)
    rectified, size = model.rectification != "none", (data.channels, data.height, data.width)
    rectifier = RECTIFIERS[model.rectification](*size) if rectified else nn.Identity()
    backbone = build_backbone(model.backbone, data.channels, *seen_size(model, data))
    neck = NECKS[model.neck](backbone.channels, model.hidden, model.layers)
    net: Recogniser
    if model.name == "crnn":
        net = CRNN(rectifier, backbone, neck, classes)
        if net.drops:  # else MindSpore's own start, which is that of MindOCR's CRNN
            net.head.weight.set_data(initializer(Normal(SVTR_HEAD), net.head.weight.shape))
            net.head.bias.set_data(initializer(Zero(), net.head.bias.shape))
    elif model.name == "rare":
        decoder = GruAttention(neck.channels, model.decoder_hidden, classes, model.max_length + 1)
        net = EncoderDecoder(rectifier, backbone, neck, decoder)
    else:
        decoder = PositionAttention(
            neck.channels, model.decoder_hidden, classes, backbone.columns(seen_size(model, data)[1])
        )
        net = EncoderDecoder(rectifier, backbone, neck, decoder)
    net.set_train()
    return net


def add_guide(net: CRNN, classes: int, steps: int) -> None:
    """Give a recogniser of so many classes and steps an attention decoder that is trained beside CTC's head.

    Guided training of CTC (Hu et al. 2020, arXiv 2002.01276): the features learn from both. GO and STOP take the
    blank's place and one more.
    """
    net.guide = GruAttention(net.neck.channels, GUIDE_HIDDEN, classes + 1, steps + 1)
    net.guided = True
    net.set_train()


def count_steps(net: Recogniser, data: Data) -> int:
    """Return T, how many steps the recogniser's logits have for one picture."""
    width = STN_MAKES[1] if isinstance(net.rectifier, Stn) else data.width
    return net.decoder.steps if isinstance(net, EncoderDecoder) else net.backbone.columns(width)
