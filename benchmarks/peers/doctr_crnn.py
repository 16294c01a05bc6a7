"""docTR's CRNNs as contenders, from its package, trained in float32 by AdamW as its reference script does."""

from collections.abc import Callable

import torch

from benchmarks.contender import Contender, made_pictures, made_words
from wordmill.pictures.image import Picture, normalise
from wordmill.recipe.sections import Recipe
from wordmill.text.charset import charset_of

# torchvision's package is built for PyTorch with CUDA. Beside one without, its operators are not there, and declaring
# them is enough to import it: docTR's recognisers use none.
OPERATORS = ("nms", "qnms", "roi_align", "qroi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward",
             "ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d",
             "_deform_conv2d_backward")  # fmt: skip
if not torch.version.cuda:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in OPERATORS:
        library.define(f"{operator}(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]

from doctr.models import recognition, recognition_predictor  # type: ignore[import-not-found]  # noqa: E402

ARCHITECTURES = {"vgg7": "crnn_vgg16_bn", "mobilenet_v3": "crnn_mobilenet_v3_large"}
CLIP = 5.0


def reader(recipe: Recipe, batch: int) -> Callable[[list[Picture]], object]:
    """Return docTR's own way from crops (H, W, 3) to texts, by its network nearest to the recipe's."""
    architecture = ARCHITECTURES[recipe.model.backbone]
    predictor: Callable[[list[Picture]], object] = recognition_predictor(
        architecture, pretrained=False, pretrained_backbone=False, batch_size=batch
    )
    return predictor


def contender(recipe: Recipe, mode: str, batch: int, device: str) -> Contender:
    """Return one training step, or one batch's prediction, of docTR's network nearest to the recipe's."""
    data = recipe.data
    net = getattr(recognition, ARCHITECTURES[recipe.model.backbone])(
        pretrained=False,
        pretrained_backbone=False,
        vocab=charset_of(data).symbols,
        input_shape=(data.channels, data.height, data.width),
    ).to(device)
    images = torch.from_numpy(normalise(made_pictures(recipe, batch), 127.5)).to(device)
    if mode == "inference":
        net.eval()
        net.exportable = True  # logits alone, no texts
        return Contender(torch.inference_mode()(lambda: net(images)["logits"].cpu()))
    words = made_words(recipe, batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    net.train()

    def step() -> float:
        loss = net(images, words)["loss"]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        return float(loss.item())

    return Contender(step)
