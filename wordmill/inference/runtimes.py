"""The runtimes of exported files: each opens a file by its path and its card, and says what it is."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wordmill.inference.batches import Array, Call
from wordmill.inference.card import ANY
from wordmill.recipe import frameworks

Card = dict[str, Any]
Opened = tuple[Call, str]

ASCEND_DEVICE = 0  # the first of those that ASCEND_VISIBLE_DEVICES leaves to this process
INSTALL = {  # what brings each format's runtime
    "onnx": "pip install onnxruntime",
    "onnx_int8": "pip install onnxruntime",
    "onnx_int8_qoperator": "pip install onnxruntime",
    "mindir": "pip install mindspore",
    "lite": "install the wheel mindspore_lite of converter_lite's own version, see https://www.mindspore.cn/lite, "
            "and set LD_LIBRARY_PATH to runtime/lib of its archive",
    "om": "install CANN, source its set_env.sh, and install the wheels aclruntime and ais_bench, "
          "see https://gitee.com/ascend/tools, ais-bench_workload",
}  # fmt: skip


class MissingRuntimeError(RuntimeError):
    """A format's runtime cannot be imported here; the message says what brings it."""


def open_file(export_format: str, path: Path, card: Card) -> Opened:
    """Open a file of a format; return what runs a batch of images as its card wants them, and the runtime's name."""
    try:
        return RUNTIMES[export_format](path, card)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise MissingRuntimeError(f"format {export_format}: its runtime is not here, {reason}: "
                                  f"{INSTALL[export_format]}") from None  # fmt: skip


def batches_of(card: Card, name: str) -> tuple[int, ...]:
    """Return the sizes of batch that a card's file takes: its one, or its gears; none where it takes any."""
    if "gears" in card:
        return tuple(card["gears"])
    # A registered model's card lists its files without: the one that it carries takes any.
    told = [entry.get("batch", ANY) for entries in card["files"].values() for entry in entries if entry["name"] == name]
    return tuple(int(size) for size in told if size != ANY)


def open_onnx_file(path: Path, card: Card) -> Opened:
    """Open an ONNX file in ONNX Runtime on the processor."""
    from wordmill.inference.onnx_runtime import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given, found = card["input"]["name"], [output["name"] for output in card["outputs"]]

    def call(images: Array) -> list[Array]:
        return [np.asarray(output) for output in session.run(found, {given: images})]

    return call, f"onnxruntime {onnxruntime.__version__}, CPU"


def open_mindir_file(path: Path, card: Card) -> Opened:
    """Open a MindIR file in MindSpore on the processor."""
    frameworks.prepare("mindspore")
    from wordmill.inference.mindir import MindirRuntime

    runtime = MindirRuntime(path)
    return lambda images: [runtime(images)], runtime.name


def open_lite(path: Path, card: Card) -> Opened:
    """Open a file of converter_lite in MindSpore Lite on the card's device (Python API of 2.x)."""
    lite = importlib.import_module("mindspore_lite")
    context = lite.Context()
    context.target = [card["device"]]
    if card["device"] == "ascend":
        context.ascend.device_id = ASCEND_DEVICE
    model = lite.Model()
    model.build_from_file(str(path), lite.ModelType.MINDIR, context)

    def call(images: Array) -> list[Array]:
        inputs = model.get_inputs()
        if list(inputs[0].shape) != list(images.shape):
            model.resize(inputs, [list(images.shape)])
        inputs[0].set_data_from_numpy(np.ascontiguousarray(images))
        # Copies: the next call writes into the same buffers.
        return [np.array(output.get_data_to_numpy()) for output in model.predict(inputs)]

    return call, f"mindspore_lite {lite.__version__}, {card['device']}"


def open_om(path: Path, card: Card) -> Opened:
    """Open an OM file on an Ascend chip through ais_bench, whose sessions rest on CANN's acl."""
    interface = importlib.import_module("ais_bench.infer.interface")
    session = interface.InferSession(ASCEND_DEVICE, str(path))
    # What is open in its shape is the batch, in gears; the tool has a mode for that.
    mode = "dymbatch" if any(size < 0 for size in session.get_inputs()[0].shape) else "static"

    def call(images: Array) -> list[Array]:
        outputs: list[Array] = session.infer([np.ascontiguousarray(images)], mode=mode)
        return outputs

    return call, "ais_bench, ascend"


RUNTIMES: dict[str, Callable[[Path, Card], Opened]] = {
    "onnx": open_onnx_file, "onnx_int8": open_onnx_file, "onnx_int8_qoperator": open_onnx_file,
    "mindir": open_mindir_file, "lite": open_lite, "om": open_om,
}  # fmt: skip
