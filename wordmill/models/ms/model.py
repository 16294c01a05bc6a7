"""The recognisers in MindSpore."""

from mindspore import Tensor, nn

from wordmill.models.architectures import VIEWS_DROPOUT, check_size
from wordmill.models.ms.backbones import BACKBONES, Backbone
from wordmill.models.ms.decoders import Decoder, GruAttention, PositionAttention
from wordmill.models.ms.layers import Dropout
from wordmill.models.ms.necks import NECKS, Neck
from wordmill.models.ms.rectification import Tps
from wordmill.models.ms.views import ViewsCnn
from wordmill.recipe.sections import Data, Model


class CRNN(nn.Cell):
    """Shi et al. 2015 (arXiv 1507.05717): backbone, neck and a linear head that CTC reads."""

    def __init__(self, rectifier: nn.Cell, backbone: Backbone, neck: Neck, classes: int) -> None:
        super().__init__()
        self.rectifier, self.backbone, self.neck = rectifier, backbone, neck
        self.head = nn.Dense(neck.channels, classes)

    def construct(self, images: Tensor) -> Tensor:
        """Return logits (N, T, classes) float32 of normalised images (N, C, H, W) float32."""
        return self.head(self.neck(self.backbone(self.rectifier(images))))


class EncoderDecoder(nn.Cell):
    """RARE (Shi et al. 2016, arXiv 1603.03915) and its kin: a decoder writes what the backbone and the neck encode."""

    def __init__(self, rectifier: nn.Cell, backbone: Backbone, neck: Neck, decoder: Decoder) -> None:
        super().__init__()
        self.rectifier, self.backbone, self.neck, self.decoder = rectifier, backbone, neck, decoder
        self.dropout = Dropout(VIEWS_DROPOUT) if isinstance(backbone, ViewsCnn) else None

    def encode(self, images: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return features (N, T, channels) float32 of normalised images (N, C, H, W) float32.

        While training, dropout goes by seeds (N,) int32.
        """
        features = self.backbone(self.rectifier(images))
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
    rectified = model.rectification == "tps"
    rectifier = Tps(data.channels, data.height, data.width) if rectified else nn.Identity()
    backbone = BACKBONES[model.backbone](data.channels)
    neck = NECKS[model.neck](backbone.channels, model.hidden, model.layers)
    net: Recogniser
    if model.name == "crnn":
        net = CRNN(rectifier, backbone, neck, classes)
    elif model.name == "rare":
        decoder = GruAttention(neck.channels, model.decoder_hidden, classes, model.max_length + 1)
        net = EncoderDecoder(rectifier, backbone, neck, decoder)
    else:
        decoder = PositionAttention(neck.channels, model.decoder_hidden, classes, backbone.columns(data.width))
        net = EncoderDecoder(rectifier, backbone, neck, decoder)
    net.set_train()
    return net


def count_steps(net: Recogniser, data: Data) -> int:
    """Return T, how many steps the recogniser's logits have for one picture."""
    return net.decoder.steps if isinstance(net, EncoderDecoder) else net.backbone.columns(data.width)
