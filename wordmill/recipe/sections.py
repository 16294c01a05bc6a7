"""The sections of a recipe: typed and frozen."""

import dataclasses
from typing import Literal

ProtocolName = Literal["mindocr", "dtrb", "parseq", "paddleocr", "fudan", "fsns"]  # by which readings are compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on: data sets of the catalogue, the characters, and how a picture becomes an input."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    charset: str  # a built-in one's name, a .txt file, or several of these with + between
    height: int
    width: int
    channels: Literal[1, 3]
    # By whose rules labels of training sets are shortened, emptied or dropped: labels.py has the table.
    label_policy: Literal["mindocr", "dtrb", "dtrb_unfiltered", "parseq", "paddleocr"] = "mindocr"
    max_label: int = 25  # characters of the longest label that the policy takes; 0: of any length
    # Of each training set its share of an epoch, whatever its size; none: each sample of all sets comes once.
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    # Of sets with shares, what part of their samples is learnt from, drawn: a smaller one lies within a larger one.
    fractions: dict[str, float] = dataclasses.field(default_factory=dict)
    epoch_samples: int = 0  # of an epoch, where sets have shares; 0: as many as all sets have together
    limit: int = 0  # use only the first so many samples of each training set; 0: all
    space: bool = False  # the space is a character too, behind those of the charset
    fit: Literal["stretch", "pad_black", "pad_grey"] = "stretch"  # or keep the ratio of the sides, padded on the right
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    turn_tall: bool = False  # pictures over twice as high as wide are first turned a quarter to the left
    # Shards hold pictures as they go in, or the files that they come in: smaller, and decoded at every reading.
    stored: Literal["decoded", "encoded"] = "decoded"
    # The one training set, a rendered one, is drawn while training: no file holds it, and no picture comes twice.
    streamed: bool = False
    # Training goes without pictures that are a benchmark's, resized, compressed anew or cropped a little.
    leave_out_leaks: bool = False
    middle: float = 127.5  # the level that a recogniser reads as 0: its input is (x - middle) / middle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The recogniser: what turns (N, C, H, W) into logits (N, T, classes)."""

    name: Literal["crnn", "rare", "seq2seq"]  # crnn: what CTC reads, with a recurrent neck or without one
    backbone: Literal["compact", "separable", "vgg7", "vgg7_padded", "vgg7_dtrb", "resnet34_vd", "resnet34_vd_padded",
                      "mobilenet_v3", "svtr_tiny", "views_cnn"]  # fmt: skip
    neck: Literal["bilstm", "bilstm_linked", "none"]
    hidden: int = 0  # of the neck
    layers: int = 0
    rectification: Literal["none", "tps", "stn"] = "none"  # stn: to 32x100, as MindOCR's SVTR
    max_length: int = 0  # characters that rare's decoder can write; others derive it from the picture's width
    decoder_hidden: int = 0  # of the attention decoders of rare and seq2seq


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """How it is trained; the batch is the global one, over all devices, of one step of the optimiser."""

    framework: Literal["pytorch", "mindspore"]
    epochs: int
    global_batch: int
    # Means of each sample's loss: over the batch; the same after a division by the label's length; over the batch's
    # characters; over the batch of sums over all steps, padding included.
    loss: Literal["ctc", "ctc_by_length", "cross_entropy", "cross_entropy_unmasked"]
    optimizer: Literal["adamw", "adam", "adadelta", "lion", "muon"]
    lr: float
    warmup_epochs: float
    weight_decay: float
    amp: Literal["O0", "O1", "O2", "O3"]
    seed: int
    # Behind the warm-up; of one_cycle that is its rise, from a 25th, in half a cosine.
    schedule: Literal["warmup_cosine", "constant", "step", "piecewise", "one_cycle"] = "warmup_cosine"
    min_lr: float = 0.0  # where the cosine ends
    step_epochs: float = 0.0  # of step: after so many epochs each the rate is multiplied by step_factor
    step_factor: float = 0.0
    piece_epochs: tuple[float, ...] = ()  # of piecewise: from each of these on the rate is that of piece_lrs
    piece_lrs: tuple[float, ...] = ()
    # Of parts, such as backbone, neck, head and decoder: what their rate is multiplied by; in how many steps at first
    # they stay as they are, running statistics too (pictures are normalised by their batch all the same).
    lr_factors: dict[str, float] = dataclasses.field(default_factory=dict)
    freeze: dict[str, int] = dataclasses.field(default_factory=dict)
    beta1: float = 0.9
    beta2: float = 0.999
    decay_all: bool = True  # weight decay on biases and normalisation too, as the published recipes have it
    clip_norm: float = 0.0  # 0: gradients are not clipped
    # Parts of a process's batch that go through the network one after the other; 0: as many as memory asks for.
    accumulation: int = 0
    ema_decay: float = 0.0  # of the moving average that is validated and kept; 0: the weights themselves
    start_from: str = ""  # a .safetensors file, or a recipe whose champion's weights training starts from
    # Whether data.charset has the characters of those weights in their order, all of them and others, or any.
    start_charset: Literal["same", "union", "new"] = "same"
    start_share: float = 0.0  # that they keep in the weights which are validated and kept, new characters apart
    teacher_forcing: float = 1.0  # share of the samples whose decoder is told the truth before each step
    # words: pictures are changed before they are fitted, up to augment_strength, 0 to 1; svtr: as MindOCR's SVTR has
    # them changed; views: of each its parts.
    augment: Literal["none", "views", "words", "svtr"] = "none"
    augment_strength: float = 0.0
    # What the loss of an attention decoder counts that is trained beside CTC's head, then left out; 0: there is none.
    guide: float = 0.0
    # For so long CTC learns less and less where letters would lie were all as wide, and leaves its plateau the sooner.
    flat_start_epochs: float = 0.0
    validations_per_epoch: int = 1
    choose_by: Literal["accuracy", "loss"] = "accuracy"  # in validation: the best weights
    patience: int = 0  # so many validations in a row without better weights end training; 0: none do
    keep_best: int = 1  # so many of the best weights are results
    sync_batch_norm: bool = False  # statistics of the global batch, not of each process's own as in the published runs
    loss_scale: float = 1024.0  # where gradients are float16; dynamic: halved where they overflow, doubled in time
    loss_scaling: Literal["static", "dynamic"] = "static"
    profile: int = 0  # so many steps are traced for the framework's viewer
    checkpoint_minutes: float = 10.0
    step_timeout_minutes: float = 15.0  # a process that takes longer over a step hangs
    # By which validation chooses the best weights: evaluation.protocol, filled in by loading.
    protocol: ProtocolName = "mindocr"

    @property
    def parts(self) -> int:
        """Return the parts of a process's batch, one until memory was asked."""
        return self.accumulation or 1


OPERATION = ("checkpoint_minutes", "step_timeout_minutes")  # keys of train that no result depends on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a recogniser is measured: by whose rules its readings are compared with the labels, and how it reads."""

    protocol: ProtocolName
    beams: int = 1  # hypotheses of a beam search; 1: the likeliest class at each step
    amp: Literal["O0", "O1", "O2", "O3"] = "O0"  # as in train; O0, float32, is what exported files are compared with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate must reach: a floor on each benchmark, and not to be worse than a champion by the margin."""

    floor: float  # plain mean of word accuracy over the recipe's benchmarks, 0..1
    floors: dict[str, float]  # benchmark -> least word accuracy, 0..1: each of the recipe's has one
    margin: float = 0.0  # how much worse than a champion it may be, 0..1; 0: half a point, more where words are few
    promote: bool = True  # false, as in a smoke run: whatever it reaches, the candidate is never champion
    # The recipe's own benchmarks, all of which a promotion needs, whatever a run measures: filled in by loading.
    benchmarks: tuple[str, ...] = ()


Format = Literal["mindir", "onnx", "onnx_int8", "onnx_int8_qoperator", "om", "lite"]
INT8 = ("onnx_int8", "onnx_int8_qoperator")  # as QDQ, which all runtimes take, and as ONNX Runtime's own operators


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """The file formats made of the trained model, and the largest logit difference that those in fp32 may show."""

    formats: tuple[Format, ...]  # a run fails where one of them cannot be made
    optional: tuple[Format, ...] = ()  # one that cannot be made is reported with the reason
    logit_tolerance: float = 1e-3
    int8_loss: float = 0.002  # the largest share of words that files in 8-bit integers may cost
    opset: int = 17  # of ONNX, and of what om and lite are converted from
    batches: tuple[int, ...] = ()  # one file for each; none: files for any batch, and for om 1, 16 and 64
    any_width: bool = False  # crnn's onnx and mindir files take pictures of any width
    beam: bool = False  # onnx: an attention recogniser's encoder and decoder too, as two files
    # ATC's options; pictures go as bytes into a file with aipp; gears: one file for all of the batches.
    precision_mode: Literal["force_fp16", "allow_fp32_to_fp16", "allow_mix_precision", "must_keep_origin_dtype"] = (
        "force_fp16"
    )
    output_type: Literal["FP32", "FP16"] = "FP32"
    aipp: bool = False
    gears: bool = False
    lite_device: Literal["cpu", "ascend"] = "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recogniser from data to exported files."""

    name: str
    data: Data
    model: Model
    train: Train
    benchmarks: tuple[str, ...]
    evaluation: Evaluation
    gate: Gate
    export: Export


SECTIONS: dict[str, type] = {
    "data": Data,
    "model": Model,
    "train": Train,
    "evaluation": Evaluation,
    "gate": Gate,
    "export": Export,
}
