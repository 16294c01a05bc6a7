"""Where published weights come from: whose names they have, and what of their layout is put right.

MindOCR's .ckpt files: names and order of classes as in its release 0.5.0 (mindocr/models/backbones/rec_vgg.py,
rec_resnet.py and rec_svtr.py, transforms/stn.py, necks/rnn.py, heads/rec_ctc_head.py and rec_attn_head.py), which its
published files are loaded by.
CRNN's .pth files: names as in meijieru/crnn.pytorch, Sierkinhane/CRNN_Chinese_Characters_Rec and Ascend's port of it
(Ascend/ModelZoo-PyTorch, CRNN_for_PyTorch/crnn.py), which splits each bidirectional LSTM into one for each direction.
DTRB's .pth files: clovaai/deep-text-recognition-benchmark, model.py and modules/ (None-VGG-BiLSTM-CTC alone fits).
PaddleOCR's .pdparams files: its releases from 2.0 on, ppocr/modeling (backbones/rec_mobilenet_v3.py and
rec_resnet_vd.py, necks/rnn.py, heads/rec_ctc_head.py).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from wordmill.models.architectures import RESNET_STAGES, SVTR_STAGES
from wordmill.models.checkpoint import Tensors

Rename = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Whose weights they are: the file's ending, the framework, the backbones they have, and how their names change.

    Names change from their start on, by each of the patterns in turn. `prepare` puts right, under the file's names,
    what is laid out otherwise, and `note` says so; `strange` are names that no recipe has a place for, and why.
    """

    ending: str
    framework: str
    backbones: tuple[str, ...]
    names: tuple[tuple[str, Rename], ...]
    prepare: Callable[[Tensors], Tensors] = dict
    note: str = ""
    strange: tuple[tuple[str, str], ...] = ()


def _from_one(pattern: str, name: str) -> tuple[str, Rename]:
    """Return the renaming of layers that are counted from 0 there and from 1 here."""
    return pattern, lambda match: f"{name}{int(match[1]) + 1}."


def _after_pool(match: re.Match[str]) -> int:
    """Return the number of a convolution, from 1, that is counted together with the pools between there."""
    return int(match[1]) // 2 + 1


def _svtr_block(match: re.Match[str]) -> str:
    """Return the name of a block that is counted from 0 within its stage there and through all stages here."""
    before = sum(depth for _, depth, _ in SVTR_STAGES[: int(match[1]) - 1])
    return f"backbone.blocks.{before + int(match[2])}."


def _block(match: re.Match[str]) -> str:
    """Return the name of a residual block that PaddleOCR has by stage and number."""
    stage, number = int(match[1]), int(match[2])
    return f"backbone.blocks.{sum(depth for _, depth in RESNET_STAGES[:stage]) + number}."


def _one_head(tensors: Tensors) -> Tensors:
    """Return DTRB's weights with the linear layer behind its last LSTM worked into Prediction: nothing lies between."""
    found, inner = dict(tensors), "SequenceModeling.1.linear"
    if {"Prediction.weight", "Prediction.bias", f"{inner}.weight", f"{inner}.bias"} <= set(found):
        outer, weight = found["Prediction.weight"].astype(np.float64), found.pop(f"{inner}.weight")
        bias = found["Prediction.bias"] + outer @ found.pop(f"{inner}.bias")
        found |= {"Prediction.weight": (outer @ weight).astype(np.float32), "Prediction.bias": bias.astype(np.float32)}
    return found


def _as_here(tensors: Tensors) -> Tensors:
    """Return PaddleOCR's weights for red, green and blue, with linear layers as (out, in) and this hard sigmoid.

    It reads pictures as blue, green and red, and its hard sigmoid rises by 0.2, where ours does by a sixth.
    """
    found = {name: values for name, values in tensors.items() if not _is_copy(name, tensors)}
    for name, values in found.items():
        if re.fullmatch(r"head\.fc\.weight", name):
            found[name] = np.ascontiguousarray(values.T)
        elif re.fullmatch(r"backbone\.(conv1\.conv|conv1_1\._conv)\.weight", name) and values.shape[1:2] == (3,):
            found[name] = np.ascontiguousarray(values[:, ::-1])
        elif re.fullmatch(r"backbone\.blocks\.\d+\.mid_se\.conv2\.(weight|bias)", name):
            found[name] = np.asarray(values * np.float32(1.2))
    return found


def _is_copy(name: str, tensors: Tensors) -> bool:
    """Tell whether a weight is one of an LSTM's, which PaddlePaddle writes twice: by cell, and as PyTorch does."""
    cell = re.fullmatch(r"(neck\.encoder\.lstm\.)(\d+)\.cell_([fb])w\.(\w+)", name)
    other = f"{cell[1]}{cell[4]}_l{cell[2]}{'_reverse' if cell[3] == 'b' else ''}" if cell else ""
    return other in tensors and np.array_equal(tensors[name], tensors[other])


ORIGINS = {
    "MindOCR": Origin(
        ending=".ckpt",
        framework="mindspore",
        backbones=("vgg7", "resnet34_vd", "svtr_tiny"),
        names=(
            (r"transform\.stn_head\.stn_convnet\.(\d+)\.0\.", lambda match: f"rectifier.conv{_after_pool(match)}."),
            (r"transform\.stn_head\.stn_convnet\.(\d+)\.1\.", lambda match: f"rectifier.bn{_after_pool(match)}."),
            (r"transform\.stn_head\.stn_fc1\.0\.", "rectifier.fc1."),
            (r"transform\.stn_head\.stn_fc1\.1\.", "rectifier.norm1."),
            (r"transform\.stn_head\.stn_fc2\.", "rectifier.fc2."),
            (r"backbone\.pos_embed\Z", "backbone.positions"),
            (r"backbone\.last_conv\.", "backbone.conv."),
            _from_one(r"backbone\.patch_embed\.proj\.(\d)\.", "backbone.embed"),
            (r"backbone\.blocks(\d)\.(\d)\.(?:mixer\.|mlp\.)?", _svtr_block),
            (r"backbone\.sub_sample(\d)\.", lambda match: f"backbone.merges.{int(match[1]) - 1}."),
            (r"backbone\.conv(\d)\.conv\.", r"backbone.conv\1."),
            (r"backbone\.conv(\d)\.bn\.", r"backbone.bn\1."),
            (r"backbone\.conv1_(\d)\.", r"backbone.conv\1."),
            (r"backbone\.block_list\.(\d+)\.short\.", r"backbone.blocks.\1.shortcut."),
            (r"backbone\.block_list\.(\d+)\.conv0\.", r"backbone.blocks.\1.conv1."),
            (r"backbone\.block_list\.(\d+)\.conv1\.", r"backbone.blocks.\1.conv2."),
            (r"(backbone\.(?!merges\.).*)\.norm\.", r"\1.bn."),
            (r"neck\.seq_encoder\.", "neck.rnn."),
            (r"head\.dense1\.", "head."),
            (r"head\.attention_cell\.rnn\.", "decoder.gru."),
            (r"head\.attention_cell\.", "decoder."),
            (r"head\.generator\.", "decoder.generator."),
        ),
    ),
    "CRNN": Origin(
        ending=".pth",
        framework="pytorch",
        backbones=("vgg7_padded",),
        names=(
            _from_one(r"cnn\.conv(\d)\.", "backbone.conv"),
            _from_one(r"cnn\.batchnorm(\d)\.", "backbone.bn"),
            (r"rnn\.(\d)\.(?:fw_)?rnn\.", r"neck.rnns.\1."),
            (r"rnn\.(\d)\.bw_rnn\.(\w+)", r"neck.rnns.\1.\2_reverse"),
            (r"rnn\.0\.embedding\.", "neck.linears.0."),
            (r"rnn\.1\.embedding\.", "head."),
        ),
    ),
    "DTRB": Origin(
        ending=".pth",
        framework="pytorch",
        backbones=("vgg7_dtrb",),
        names=(
            *(
                (rf"FeatureExtraction\.ConvNet\.{place}\.(?=weight|bias|running)", f"backbone.{layer}.")
                for place, layer in {0: "conv1", 3: "conv2", 6: "conv3", 8: "conv4", 11: "conv5", 12: "bn5",
                                     14: "conv6", 15: "bn6", 18: "conv7"}.items()
            ),
            (r"SequenceModeling\.(\d)\.rnn\.", r"neck.rnns.\1."),
            (r"SequenceModeling\.0\.linear\.", "neck.linears.0."),
            (r"Prediction\.(?=weight|bias)", "head."),
        ),
        prepare=_one_head,
        note="the linear layer behind the last LSTM went into the head",
        strange=(
            (r"Transformation\.", "its TPS is worked out at other points of a picture than rectification tps here"),
            (r"FeatureExtraction\.ConvNet\.(conv|bn|layer)\d", "no backbone is DTRB's ResNet"),
            (r"FeatureExtraction\.ConvNet\.\d+\.(wgf_u|wgr_x|wf_u|wr_x|BN_x_init|GRCL)", "no backbone is DTRB's RCNN"),
            (r"Prediction\.(attention_cell|generator)\.", "its decoder has an LSTM cell, rare's a GRU's"),
        ),
    ),
    "PaddleOCR": Origin(
        ending=".pdparams",
        framework="pytorch",
        backbones=("mobilenet_v3", "resnet34_vd_padded"),
        names=(
            (r"(backbone\..*)\.(?:_batch_norm|bn)\._mean", r"\1.bn.running_mean"),
            (r"(backbone\..*)\.(?:_batch_norm|bn)\._variance", r"\1.bn.running_var"),
            (r"(backbone\..*)\._batch_norm\.", r"\1.bn."),
            (r"(backbone\..*)\._conv\.", r"\1.conv."),
            (r"backbone\.conv1_(\d)\.", r"backbone.conv\1."),
            (r"backbone\.bb_([0-3])_(\d+)\.", _block),
            (r"(backbone\.blocks\.\d+)\.short\.", r"\1.shortcut."),
            (r"(backbone\.blocks\.\d+)\.conv1\.", r"\1.conv2."),
            (r"(backbone\.blocks\.\d+)\.conv0\.", r"\1.conv1."),
            (r"(backbone\.blocks\.\d+)\.expand_conv\.", r"\1.expand."),
            (r"(backbone\.blocks\.\d+)\.bottleneck_conv\.", r"\1.depthwise."),
            (r"(backbone\.blocks\.\d+)\.mid_se\.", r"\1.squeeze."),
            (r"(backbone\.blocks\.\d+)\.linear_conv\.", r"\1.project."),
            (r"neck\.encoder\.lstm\.(?!\d)", "neck.rnn."),
            (r"head\.fc\.", "head."),
        ),
        prepare=_as_here,
        note="the first layer takes red, green and blue, where it took blue, green and red",
        strange=(
            (r"(Student|Student2|Teacher)\.", "it holds several networks that taught each other"),
            (r"neck\.encoder\.(svtr_block|conv\d|norm)", "no neck is PaddleOCR's SVTR"),
            (r"head\.(ctc_encoder|ctc_head|sar_head|gtc_head|before_gtc)\.", "no recipe has several heads"),
            (r"backbone\.stage\d\.|backbone\.conv\.", "its backbone is one of PaddleOCR's detectors"),
        ),
    ),
}  # fmt: skip


def origin_of(ending: str, names: Iterable[str]) -> Origin | None:
    """Return the origin of a file's ending whose names most of its weights have; None where none of them has any."""
    listed = list(names)

    def known(origin: Origin) -> int:
        return sum(renamed(name, origin) != name or bool(reason_against(name, origin)) for name in listed)

    found = max((origin for origin in ORIGINS.values() if origin.ending == ending), key=known)
    return found if known(found) else None


def renamed(name: str, origin: Origin) -> str:
    """Return this project's name of a weight, or the name itself where the origin's scheme has none such."""
    for pattern, replacement in origin.names:
        name = re.sub(rf"\A{pattern}", replacement, name)
    return name


def reason_against(name: str, origin: Origin) -> str:
    """Return why no recipe has a place for a weight of this name, "" where one may have."""
    return next((reason for pattern, reason in origin.strange if re.match(pattern, name)), "")
