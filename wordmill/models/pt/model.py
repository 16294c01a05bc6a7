"""The recognisers in PyTorch."""

import torch
from torch import Tensor, nn

from wordmill.models.architectures import VIEWS_DROPOUT, check_size
from wordmill.models.pt.backbones import BACKBONES, Backbone
from wordmill.models.pt.decoders import Decoder, GruAttention, PositionAttention
from wordmill.models.pt.layers import Dropout
from wordmill.models.pt.necks import NECKS, Neck
from wordmill.models.pt.rectification import Tps
from wordmill.models.pt.views import ViewsCnn
from wordmill.recipe.sections import Data, Model


class CRNN(nn.Module):
    """Shi et al. 2015 (arXiv 1507.05717): backbone, neck and a linear head that CTC reads."""

    def __init__(self, rectifier: nn.Module, backbone: Backbone, neck: Neck, classes: int) -> None:
        super().__init__()
        self.rectifier, self.backbone, self.neck = rectifier, backbone, neck
        self.head = nn.Linear(neck.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, T, classes) float32 of normalised images (N, C, H, W) float32."""
        features = self.neck(self.backbone(self.rectifier(images)))
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(features)
        return logits


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
        features: Tensor = self.backbone(self.rectifier(images))
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


def build(model: Model, data: Data, classes: int) -> Recogniser:
    """Build the recogniser of a recipe with fresh weights; ValueError for a height that its backbone does not take."""
    check_size(model, data)
    rectified = model.rectification == "tps"
    rectifier = Tps(data.channels, data.height, data.width) if rectified else nn.Identity()
    backbone = BACKBONES[model.backbone](data.channels)
    neck = NECKS[model.neck](backbone.channels, model.hidden, model.layers)
    if model.name == "crnn":
        return CRNN(rectifier, backbone, neck, classes)
    decoder: Decoder
    if model.name == "rare":
        decoder = GruAttention(neck.channels, model.decoder_hidden, classes, model.max_length + 1)
    else:
        decoder = PositionAttention(neck.channels, model.decoder_hidden, classes, _count_columns(backbone, data))
    return EncoderDecoder(rectifier, backbone, neck, decoder)


def count_steps(net: Recogniser, data: Data) -> int:
    """Return T, how many steps the recogniser's logits have for one picture."""
    return net.decoder.steps if isinstance(net, EncoderDecoder) else _count_columns(net.backbone, data)


def _count_columns(backbone: Backbone, data: Data) -> int:
    """Return how many columns a backbone makes of one picture."""
    training = backbone.training
    with torch.no_grad():
        images = torch.zeros(1, data.channels, data.height, data.width, device=next(backbone.parameters()).device)
        features = backbone.eval()(images)
    backbone.train(training)  # in training mode the batch of zeros would have moved the running statistics
    return int(features.shape[3])
