"""The recognisers in PyTorch."""

import torch
from torch import Tensor, nn

from wordmill.models.architectures import GUIDE_HIDDEN, STN_MAKES, SVTR_HEAD, VIEWS_DROPOUT, check_size, seen_size
from wordmill.models.pt.backbones import Backbone, ViewsCnn, build_backbone
from wordmill.models.pt.decoders import Decoder, GruAttention, PositionAttention
from wordmill.models.pt.layers import Dropout
from wordmill.models.pt.necks import NECKS, Neck
from wordmill.models.pt.rectification import RECTIFIERS, Stn
from wordmill.models.pt.svtr import SvtrTiny
from wordmill.recipe.sections import Data, Model


class CRNN(nn.Module):
    """Shi et al. 2015 (arXiv 1507.05717) and its kin: backbone, neck and a linear head that CTC reads."""

    def __init__(self, rectifier: nn.Module, backbone: Backbone, neck: Neck, classes: int) -> None:
        super().__init__()
        self.rectifier, self.backbone, self.neck = rectifier, backbone, neck
        self.head = nn.Linear(neck.channels, classes)
        self.guide: GruAttention | None = None

    def forward(
        self, images: Tensor, seeds: Tensor | None = None, told: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, T, classes) float32 of normalised images (N, C, H, W) float32.

        While training, what the backbone leaves out goes by seeds (N,) int32. With a guide and what it is told,
        classes (N, T + 1) int32 of an attention decoder, its logits (N, T + 1, classes + 1) too.
        """
        features = self.neck(_features_of(self.backbone, self.rectifier(images), seeds))
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(features)
        if self.guide is None or told is None:
            return logits
        return logits, self.guide(features, told, torch.ones_like(told[:, 0]))


class EncoderDecoder(nn.Module):
    """RARE (Shi et al. 2016, arXiv 1603.03915) and its kin: a decoder writes what the backbone and the neck encode."""

    def __init__(self, rectifier: nn.Module, backbone: Backbone, neck: Neck, decoder: Decoder) -> None:
        super().__init__()
        self.rectifier, self.backbone, self.neck, self.decoder = rectifier, backbone, neck, decoder
        self.dropout = Dropout(VIEWS_DROPOUT) if isinstance(backbone, ViewsCnn) else None

    def encode(self, images: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return features (N, T, channels) float32 of normalised images (N, C, H, W) float32.

        While training, dropout goes by seeds (N,) int32.
        """
        features = _features_of(self.backbone, self.rectifier(images), seeds)
        if self.dropout is not None and seeds is not None:
            features = self.dropout(features, seeds, 0)
        encoded: Tensor = self.neck(features)
        return encoded

    def forward(
        self, images: Tensor, classes: Tensor | None = None, forced: Tensor | None = None, seeds: Tensor | None = None
    ) -> Tensor:
        """Return logits (N, steps, classes) float32; Decoder says what classes, `forced` and seeds do."""
        logits: Tensor = self.decoder(self.encode(images, seeds), classes, forced, seeds)
        return logits


Recogniser = CRNN | EncoderDecoder


def _features_of(backbone: Backbone, images: Tensor, seeds: Tensor | None) -> Tensor:
    """Return a backbone's features (N, C, 1, T) of images, which SVTR has layers for that go by seeds (N,)."""
    features: Tensor = backbone(images, seeds) if isinstance(backbone, SvtrTiny) else backbone(images)
    return features


def build(model: Model, data: Data, classes: int) -> Recogniser:
    """Build the recogniser of a recipe with fresh weights; ValueError for a height that its backbone does not take."""
    check_size(model, data)
    rectified, size = model.rectification != "none", (data.channels, data.height, data.width)
    rectifier = RECTIFIERS[model.rectification](*size) if rectified else nn.Identity()
    backbone = build_backbone(model.backbone, data.channels, *seen_size(model, data))
    neck = NECKS[model.neck](backbone.channels, model.hidden, model.layers)
    if model.name == "crnn":
        net = CRNN(rectifier, backbone, neck, classes)
        if isinstance(backbone, SvtrTiny):  # else PyTorch's own start, which is that of MindOCR's CRNN
            nn.init.normal_(net.head.weight, 0.0, SVTR_HEAD)
            nn.init.zeros_(net.head.bias)
        return net
    decoder: Decoder
    if model.name == "rare":
        decoder = GruAttention(neck.channels, model.decoder_hidden, classes, model.max_length + 1)
    else:
        columns = _count_columns(rectifier, backbone, data)
        decoder = PositionAttention(neck.channels, model.decoder_hidden, classes, columns)
    return EncoderDecoder(rectifier, backbone, neck, decoder)


def add_guide(net: CRNN, classes: int, steps: int) -> None:
    """Give a recogniser of so many classes and steps an attention decoder that is trained beside CTC's head.

    Guided training of CTC (Hu et al. 2020, arXiv 2002.01276): the features learn from both. GO and STOP take the
    blank's place and one more.
    """
    net.guide = GruAttention(net.neck.channels, GUIDE_HIDDEN, classes + 1, steps + 1)


def count_steps(net: Recogniser, data: Data) -> int:
    """Return T, how many steps the recogniser's logits have for one picture."""
    return net.decoder.steps if isinstance(net, EncoderDecoder) else _count_columns(net.rectifier, net.backbone, data)


def _count_columns(rectifier: nn.Module, backbone: Backbone, data: Data) -> int:
    """Return how many columns a backbone makes of one picture."""
    training, weight = backbone.training, next(backbone.parameters())
    size = STN_MAKES if isinstance(rectifier, Stn) else (data.height, data.width)
    with torch.no_grad():  # in earnest: on the device of shapes alone it would take PyTorch's compiler, 2 s to import
        features = backbone.eval()(torch.zeros(1, data.channels, *size, device=weight.device))
    backbone.train(training)
    return int(features.shape[3])
