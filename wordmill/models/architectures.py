"""The recognisers' numbers, which both frameworks build them of: what stands here stands nowhere else."""

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

VIEWS = 4  # of a picture of FSNS, square and side by side
# Heights of the pictures that backbones make one row of.
HEIGHTS = {
    "compact": 32, "separable": 32, "vgg7": 32, "vgg7_padded": 32, "vgg7_dtrb": 32, "resnet34_vd": 32,
    "resnet34_vd_padded": 32, "mobilenet_v3": 32, "views_cnn": 128,
}  # fmt: skip
# Pixels of width of which they make a column; of a narrower picture there is nothing to read.
LEAST_WIDTHS = {
    "compact": 4, "separable": 1, "vgg7": 8, "vgg7_padded": 4, "vgg7_dtrb": 8, "resnet34_vd": 3,
    "resnet34_vd_padded": 3, "mobilenet_v3": 3,
}  # fmt: skip

VGG7_EPSILON = 1e-4  # of its batch normalisation, MindOCR's; everywhere else NORM_EPSILON, PyTorch's
NORM_EPSILON = 1e-5
VGG7_WEIGHTS, VGG7_BIASES = 0.02, 0.01  # deviations of MindOCR's normals, which are cut at two of them
NORMALS = 0.02  # deviation of DCGAN's weights, and of its normalisation's around 1

RECTIFIER = (64, 128, 256, 512)  # channels behind each convolution of what finds the control points, as DTRB's
RECTIFIER_HIDDEN = 256

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
    expected = HEIGHTS[model.backbone]
    if data.height != expected:
        raise ValueError(f"data.height is {data.height}, expected {expected}: "
                         f"backbone {model.backbone} makes one row of so many")  # fmt: skip
    if model.backbone == "views_cnn":
        check_views(data.height, data.width)
    elif data.width < LEAST_WIDTHS[model.backbone]:
        raise ValueError(f"data.width is {data.width}, expected at least {LEAST_WIDTHS[model.backbone]}: "
                         f"backbone {model.backbone} makes a column of so many pixels")  # fmt: skip


def check_views(height: int, width: int) -> None:
    """Refuse a picture that is not as many squares side by side as FSNS has views."""
    if width != VIEWS * height:
        raise ValueError(f"data.width is {width}, expected {VIEWS * height}: backbone views_cnn reads "
                         f"{VIEWS} square views side by side")  # fmt: skip
