"""What decides on the bytes of each stage's work beside its inputs: code by its meaning, data files, versions.

What only moves, starts, follows, keeps or reports work is in no key: nothing of it changes a byte. Rendered pictures
are known by their source's identity (wordmill.sources.locating), so that nothing else depends on what draws them.
"""

from wordmill.recipe.sections import INT8, Data, Train
from wordmill.store.keys import CANN, Ingredients


def _of(package: str, names: str) -> tuple[str, ...]:
    return tuple(f"{package}.{name}" for name in names.split())


READERS = {
    "synth": (),
    "label_file": ("wordmill.readers.finding", "wordmill.readers.label_file"),
    "lmdb": ("wordmill.readers.lmdb", "wordmill.readers.pages"),
    "fsns": ("wordmill.readers.fsns", "wordmill.readers.tfrecord"),
}
AUGMENTED = {
    "views": ("wordmill.pictures.augmentation",),
    "words": ("wordmill.pictures.distortion",),
    "svtr": _of("wordmill.pictures", "augmentation svtr"),
}
UNPACKED = _of("wordmill.sources", "archives leftovers members")
FITTED = "wordmill.pictures.image"  # how a picture becomes an input
DECODED = "wordmill.pictures.decoder"
PACKED = _of("wordmill.shards", "blocks index loader")
TEXTS = _of("wordmill.text", "charset decoding")
SIMPLIFIED = "wordmill/text/charsets/simplified.tsv"

PARTS = "backbones decoders layers mobilenet model necks rectification resnet svtr weights"
COMMON = _of("wordmill.models", "architectures checkpoint tps")
NETWORKS = {
    "pytorch": COMMON + _of("wordmill.models.pt", PARTS),
    "mindspore": COMMON + _of("wordmill.models.ms", f"{PARTS} parameters"),
}
LOOP = (
    "wordmill.models.characters",
    "wordmill.shards.mixing",
    *_of("wordmill.training", "calibration constants context loop reference stream targets trainer validation"),
)
STEPS = {
    "pytorch": _of("wordmill.training.pt", "losses optimisers processes scaler state train"),
    "mindspore": _of("wordmill.training.ms", "losses optimisers processes state step sync train"),
}
TWINS = {"pytorch": "wordmill.models.pt", "mindspore": "wordmill.models.ms"}
READING = {
    "pytorch": _of("wordmill.models.pt", "precision predict winograd"),
    "mindspore": _of("wordmill.models.ms", "precision predict"),
}
COMPUTING = {"pytorch": ("torch",), "mindspore": ("mindspore",)}
ON_CHIP = {"pytorch": ("torch-npu", CANN), "mindspore": (CANN,)}
PICTURES = ("opencv-python-headless", "pillow", "numpy")


def of_shard(reader: str) -> Ingredients:
    """Return what packs a data set of this form."""
    return Ingredients(
        code=("components.shard.packing", *_of("wordmill.readers", "holdout opening sample"), *READERS[reader],
              *(UNPACKED if READERS[reader] else ()), FITTED, DECODED, "wordmill.pictures.resemblance",
              *_of("wordmill.shards", "blocks index tally"),
              *_of("wordmill.text", "charset labels")),
        distributions=(*PICTURES, "lmdb"),
    )  # fmt: skip


def of_leaks() -> Ingredients:
    """Return what finds a benchmark's pictures among those of training."""
    return Ingredients(code=("components.shard.leaks", "wordmill.pictures.resemblance"), distributions=("numpy",))


def of_train(train: Train, data: Data, device: str) -> Ingredients:
    """Return what trains by these sections on this kind of device; pictures that are stored as they go in are read."""
    streamed = _of("wordmill.training", "feeder rendered") if data.streamed else ()
    decoded = (DECODED,) if data.stored == "encoded" else ()
    fitted = (FITTED, *streamed, *decoded) if data.streamed or data.stored == "encoded" else ()
    return Ingredients(
        code=(*LOOP, *STEPS[train.framework],
              *NETWORKS[train.framework], f"{TWINS[train.framework]}.precision", *AUGMENTED.get(train.augment, ()),
              *fitted, *PACKED, *TEXTS, *_of("wordmill.text", "protocols temperature"), "wordmill.recipe.schedule"),
        data=(SIMPLIFIED,) if train.protocol == "fudan" else (),
        distributions=(*COMPUTING[train.framework], *PICTURES, *_chip(train.framework, device)),
    )  # fmt: skip


def of_evaluate(framework: str, device: str, protocol: str) -> Ingredients:
    """Return what reads benchmarks in this framework on this kind of device and compares by this protocol."""
    return Ingredients(
        code=("components.evaluate.stage", "wordmill.inference.evaluation", *NETWORKS[framework],
              *READING[framework], FITTED, DECODED, *PACKED, *TEXTS, *_of("wordmill.text", "beam metrics protocols")),
        data=(SIMPLIFIED,) if protocol == "fudan" else (),
        distributions=(*COMPUTING[framework], *PICTURES, "rapidfuzz", *_chip(framework, device)),
    )  # fmt: skip


def of_confidences(framework: str, device: str) -> Ingredients:
    """Return what reads validation sets in this framework on this kind of device and counts confidences."""
    reading = of_evaluate(framework, device, protocol="mindocr")
    code = (*reading.code, "components.evaluate.confidences", "wordmill.text.temperature")
    return Ingredients(code=code, distributions=reading.distributions)


def of_export(export_format: str) -> Ingredients:
    """Return what writes files of this format."""
    framework = "mindspore" if export_format == "mindir" else "pytorch"
    others = {"om": (CANN,), "lite": ("mindspore-lite", CANN)} | dict.fromkeys(INT8, ("onnxruntime",))
    return Ingredients(
        code=(*_of("components.export", "formats lite om stage"), *_of("wordmill.inference", "card quantise"),
              *NETWORKS[framework], f"{TWINS[framework]}.export", "wordmill.models.ports", FITTED, DECODED, *PACKED,
              *TEXTS, "wordmill.text.protocols"),
        distributions=(*COMPUTING[framework], *PICTURES, *(("onnx",) if framework == "pytorch" else ()),
                       *others.get(export_format, ())),
    )  # fmt: skip


def of_smoke(export_format: str) -> Ingredients:
    """Return what runs files of this format and compares."""
    runtimes = {"mindir": ("mindspore",), "lite": ("mindspore-lite", CANN), "om": ("aclruntime", "ais-bench", CANN)}
    return Ingredients(
        code=(*_of("components.smoke", "parity probe stage"),
              *_of("wordmill.inference", "batches card mindir onnx_runtime runtimes"),
              "wordmill.inference.packaged.pair", "wordmill.models.ports", FITTED, *TEXTS, "wordmill.text.beam"),
        distributions=("numpy", *runtimes.get(export_format, ("onnxruntime",))),
    )  # fmt: skip


def _chip(framework: str, device: str) -> tuple[str, ...]:
    return ON_CHIP[framework] if device == "npu" else ()
