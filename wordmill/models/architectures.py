"""The recognisers' numbers, which both frameworks build them of: what stands here stands nowhere else."""

import numpy as np
import numpy.typing as npt

from wordmill.recipe.sections import Data, Model

# Channels behind each convolution of a backbone.
COMPACT = (32, 48, 96, 96, 192, 256, 320)
SEPARABLE_STEM, SEPARABLE_HEAD = 32, 256
# Kernel, channels out, strides; height and width each.
SEPARABLE_BLOCKS = (
    ((3, 3), 64, (2, 2)),
    ((3, 3), 64, (1, 1)),
    ((3, 3), 128, (2, 1)),
    ((3, 5), 128, (1, 1)),
    ((3, 5), 128, (1, 1)),
    ((3, 3), 256, (2, 1)),
    ((3, 5), 256, (1, 1)),
    ((3, 5), 256, (1, 1)),
)
VGG7 = (64, 128, 256, 256, 512, 512, 512)
VIEWS_CNN = (64, 128, 256, 256, 384, 384, 384, 384, 384, 384, 32)
RESNET_STEM = (32, 32, 64)
RESNET_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels and blocks
MOBILENET_STEM, MOBILENET_HEAD = 8, 480
# Kernel, channels inside, channels out, squeeze and excitation, hard swish (else ReLU), stride of the height.
MOBILENET_BLOCKS = (
    (3, 8, 8, False, False, 1),
    (3, 32, 16, False, False, 2),
    (3, 40, 16, False, False, 1),
    (5, 40, 24, True, False, 2),
    (5, 64, 24, True, False, 1),
    (5, 64, 24, True, False, 1),
    (3, 120, 40, False, True, 1),
    (3, 104, 40, False, True, 1),
    (3, 96, 40, False, True, 1),
    (3, 96, 40, False, True, 1),
    (3, 240, 56, True, True, 1),
    (3, 336, 56, True, True, 1),
    (5, 336, 80, True, True, 2),
    (5, 480, 80, True, True, 1),
    (5, 480, 80, True, True, 1),
)
SQUEEZE = 4  # of so many channels, squeeze and excitation has one inside
# SVTR-Tiny (Du et al. 2022, arXiv 2205.00159), as MindOCR's SVTRNet has it: of each stage channels, blocks and heads.
SVTR_STAGES = ((64, 3, 2), (128, 6, 4), (256, 3, 8))
SVTR_LOCAL, SVTR_WINDOW = 6, (7, 11)  # so many blocks mix a window of patches, height and width; the others mix all
SVTR_PATCH = 4  # pixels of a patch, either way
SVTR_WIDER = 4  # times as many channels within a block's two dense layers
SVTR_COLUMNS = 192  # channels of a column at the end
# The largest share of samples that skip a block, the last one's; it rises evenly from none of the first.
SVTR_SKIPPED, SVTR_DROPOUT = 0.1, 0.1
SVTR_EPSILON, SVTR_MERGE_EPSILON = 1e-6, 1e-7  # of layer normalisation; the second is MindSpore's own
SVTR_HEAD = 0.01  # deviation of the head's normals; its biases start from 0

VIEWS = 4  # of a picture of FSNS, square and side by side
# Heights of the pictures that backbones make one row of.
HEIGHTS = {
    "compact": (32, 48), "separable": (32, 48), "vgg7": (32,), "vgg7_padded": (32,), "vgg7_dtrb": (32,),
    "resnet34_vd": (32,), "resnet34_vd_padded": (32,), "mobilenet_v3": (32,), "svtr_tiny": (32, 48),
    "views_cnn": (128,),
}  # fmt: skip
# Pixels of width of which they make a column; of a narrower picture there is nothing to read.
LEAST_WIDTHS = {
    "compact": 4, "separable": 1, "vgg7": 8, "vgg7_padded": 4, "vgg7_dtrb": 8, "resnet34_vd": 3,
    "resnet34_vd_padded": 3, "mobilenet_v3": 3, "svtr_tiny": 4,
}  # fmt: skip

VGG7_EPSILON = 1e-4  # of its batch normalisation, MindOCR's; everywhere else NORM_EPSILON, PyTorch's
NORM_EPSILON = 1e-5
VGG7_WEIGHTS, VGG7_BIASES = 0.02, 0.01  # deviations of MindOCR's normals, which are cut at two of them
NORMALS = 0.02  # deviation of DCGAN's weights, and of its normalisation's around 1

RECTIFIER = (64, 128, 256, 512)  # channels behind each convolution of what finds the control points, as DTRB's
RECTIFIER_HIDDEN = 256
# Of MindOCR's STN_ON: channels behind each convolution, each but the last with a pool behind it; the size that it looks
# at and that of what it makes, height and width; how far in control points lie, in the straight picture and at first.
STN, STN_HIDDEN = (32, 64, 128, 256, 256, 256), 512
STN_LOOKS, STN_MAKES = (32, 64), (32, 100)
STN_MARGIN, STN_START = 0.05, 0.01
STN_SLOW = 0.1  # what the control points' layer takes of the one before it

# Of the attention decoder that guides CTC while training; its weights' names, which no finished recogniser has.
GUIDE_HIDDEN, GUIDE = 256, "guide."

VIEWS_DROPOUT, DECODER_DROPOUT = 0.5, 0.1  # of seq2seq, as CRNN-Seq2Seq-OCR's


def signed(word: int) -> int:
    """Return the int32 of the same 32 bits; int32 is multiplied and added as uint32 is."""
    return (word + 2**31) % 2**32 - 2**31


# Dropout's odd multipliers of 32 bits: that of lowbias32 (Chris Wellons 2018, "Prospecting for Hash Functions"), and
# two that spread places and salts over the numbers that it mixes.
PLACE, SALT, MIX1, MIX2 = map(signed, (0x9E3779B1, 0x85EBCA77, 0x7FEB352D, 0x846CA68B))


# Deliberate deviations from the published code: CTC's blank is the first class, where MindOCR has it last; GO and
# STOP are the first two of every decoder, where CRNN-Seq2Seq-OCR begins with padding, GO, STOP and "unknown"; labels
# that do not fit are left out of training, where MindOCR learns them as empty; GO within a word is left out of the
# text; decoders compute in float32, where CRNN-Seq2Seq-OCR has float16.
def check_size(model: Model, data: Data) -> None:
    """Refuse pictures of a height, a width or of views that the recogniser's backbone does not take."""
    if model.rectification == "stn":
        check_stn(data.height, data.width)
    height, width = seen_size(model, data)
    if height not in HEIGHTS[model.backbone]:
        expected = " or ".join(map(str, HEIGHTS[model.backbone]))
        raise ValueError(f"data.height is {height}, expected {expected}: "
                         f"backbone {model.backbone} makes one row of so many")  # fmt: skip
    if model.backbone == "views_cnn":
        check_views(height, width)
    elif width < LEAST_WIDTHS[model.backbone]:
        raise ValueError(f"data.width is {width}, expected at least {LEAST_WIDTHS[model.backbone]}: "
                         f"backbone {model.backbone} makes a column of so many pixels")  # fmt: skip


def skipped_share(block: int) -> float:
    """Return the share of samples that skip a block of SVTR while training."""
    return SVTR_SKIPPED * block / (sum(depth for _, depth, _ in SVTR_STAGES) - 1)


def window_mask(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Return what SVTR's local mixing adds to scores (patches, patches): 0 within a patch's window, -inf outside it."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    apart = np.abs(y[:, None] - y) * 2 > SVTR_WINDOW[0], np.abs(x[:, None] - x) * 2 > SVTR_WINDOW[1]
    return np.asarray(np.where(apart[0] | apart[1], -np.inf, 0.0), dtype=np.float32)


def seen_size(model: Model, data: Data) -> tuple[int, int]:
    """Return height and width of the pictures that the backbone is given."""
    return STN_MAKES if model.rectification == "stn" else (data.height, data.width)


def check_stn(height: int, width: int) -> None:
    """Refuse a picture that has fewer pixels than STN looks at."""
    if height < STN_LOOKS[0] or width < STN_LOOKS[1]:
        raise ValueError(f"data.height and data.width are {height} and {width}, expected at least {STN_LOOKS[0]} and "
                         f"{STN_LOOKS[1]}: rectification stn looks at so many pixels")  # fmt: skip


def check_views(height: int, width: int) -> None:
    """Refuse a picture that is not as many squares side by side as FSNS has views."""
    if width != VIEWS * height:
        raise ValueError(f"data.width is {width}, expected {VIEWS * height}: backbone views_cnn reads "
                         f"{VIEWS} square views side by side")  # fmt: skip
