"""What memory training takes on processors, by measurement, and how many parts of a batch that asks for."""

import dataclasses

from wordmill.recipe.sections import Data, Model, Train

MIB = 2**20
SHARE = 0.75  # of a machine's memory that training may take: the rest is the system's and other programs'
LEAST_PICTURES = 2  # pictures of a part: batch normalisation needs more than one
# By framework, model and backbone: what a process takes without pictures, in MiB, and what a picture adds in KiB for
# each of its pixels, forward and backward in float32, rounded up. `benchmarks/memory.py` measures both. All but
# MindSpore's crnn/vgg7 and crnn/resnet34_vd are from steps of few and more pictures in one process; MindSpore's
# crnn/svtr_tiny takes 1,500 MiB for its steps, and with the graph that validation builds what stands here.
NEED: dict[str, dict[str, tuple[int, float]]] = {
    "pytorch": {
        "crnn/compact": (400, 1.2), "crnn/separable": (400, 0.9), "crnn/vgg7": (550, 2.5),
        "crnn/vgg7_padded": (620, 1.5),
        "crnn/resnet34_vd": (950, 12.0), "crnn/mobilenet_v3": (450, 4.5), "crnn/svtr_tiny": (550, 1.2),
        "rare/resnet34_vd": (950, 12.0),
        "seq2seq/views_cnn": (700, 2.5),
    },
    "mindspore": {
        "crnn/compact": (700, 3.0), "crnn/separable": (700, 0.9), "crnn/vgg7": (1150, 2.5),
        "crnn/vgg7_padded": (1100, 4.5),
        "crnn/resnet34_vd": (2950, 9.5), "crnn/mobilenet_v3": (1650, 18.0), "crnn/svtr_tiny": (2350, 3.6),
        "rare/resnet34_vd": (3700, 45.0),
        "seq2seq/views_cnn": (2050, 5.2),
    },
}  # fmt: skip


def need_of(framework: str, model: Model) -> tuple[int, float]:
    """Return a recogniser's numbers in NEED; of one that nobody has measured those of the dearest that is."""
    known = NEED[framework]
    return known.get(f"{model.name}/{model.backbone}") or max(known.values(), key=lambda need: need[1])


def bytes_needed(train: Train, data: Data, model: Model, processes: int) -> int:
    """Return what each of so many processes needs about, by the parts that its batch goes in."""
    process, pixel = need_of(train.framework, model)
    pictures = train.global_batch // processes // train.parts
    return round(process * MIB + pictures * data.height * data.width * pixel * 1024)


def parts_that_fit(train: Train, data: Data, model: Model, processes: int, memory_bytes: int) -> int:
    """Return the least number of equal parts with which so many processes fit into a machine's memory.

    Where none does, that of the smallest parts: the table is an estimate, and who is killed is told what to change.
    """
    batch, share = train.global_batch // processes, SHARE * memory_bytes / processes
    equal = [parts for parts in range(1, batch // LEAST_PICTURES + 1) if batch % parts == 0] or [1]
    for parts in equal:
        if bytes_needed(dataclasses.replace(train, accumulation=parts), data, model, processes) <= share:
            return parts
    return equal[-1]
