"""Doubles of MindSpore Lite, ais_bench and the converters: they run ONNX files, whatever these are called.

What runs records its calls. Each behaves as the real one where that could go wrong: MindSpore Lite hands out the same
buffer at every call and must be told of another shape; a session of ais_bench takes the shapes that its file was made
for alone, and its command fills up the last batch with the batch's first file and writes nothing for that.
"""

from pathlib import Path

import pytest

from wordmill.recipe.frameworks import prepended

LITE = """
import os, signal, sys, time
from types import SimpleNamespace
import numpy as np
from wordmill.inference.onnx_runtime import onnxruntime

__version__ = "2.9.0"
ModelType = SimpleNamespace(MINDIR="MINDIR")

def say(line):
    with open(LOG, "a") as log:
        print(line, file=log)

class Context:
    def __init__(self):
        self.target, self.ascend = ["cpu"], SimpleNamespace(device_id=None)

class Tensor:
    def __init__(self, shape):
        self.shape, self.array = list(shape), None
    def set_data_from_numpy(self, array):
        assert list(array.shape) == self.shape and array.dtype == np.float32 and array.flags.c_contiguous
        self.array = array
    def get_data_to_numpy(self):
        return self.array

class Model:
    def build_from_file(self, path, kind, context):
        content = open(path, "rb").read()
        if content == b"crash":
            print("bad graph", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if content == b"hang":
            time.sleep(60)
        say(f"build {os.path.basename(path)} {kind} on {context.target} {context.ascend.device_id}")
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.inputs = [Tensor([1, *self.session.get_inputs()[0].shape[1:]])]
        self.buffers = {}
    def get_inputs(self):
        return self.inputs
    def resize(self, inputs, shapes):
        say(f"resize {shapes}")
        inputs[0].shape = shapes[0]
    def predict(self, inputs):
        logits = self.session.run(["logits"], {"images": inputs[0].array})[0]
        buffer = self.buffers.setdefault(logits.shape, Tensor(logits.shape))
        if buffer.array is None:
            buffer.array = logits
        buffer.array[:] = logits
        return [buffer]
"""

AIS_BENCH = """
import os
from types import SimpleNamespace
import numpy as np
from wordmill.inference.onnx_runtime import onnxruntime

GEARS = (1, 8, 64)

def say(line):
    with open(LOG, "a") as log:
        print(line, file=log)

class InferSession:
    def __init__(self, device_id, model_path):
        say(f"open {device_id} {os.path.basename(model_path)}")
        content = open(model_path, "rb").read()
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        shape = self.session.get_inputs()[0].shape
        self.shape = [size if isinstance(size, int) else -1 for size in shape]
    def get_inputs(self):
        return [SimpleNamespace(name="images", shape=self.shape)]
    def infer(self, feeds, mode="static"):
        [images] = feeds
        say(f"infer {mode} {images.shape}")
        assert images.flags.c_contiguous
        assert mode == ("dymbatch" if self.shape[0] < 0 else "static")
        assert len(images) in (GEARS if self.shape[0] < 0 else self.shape[:1])
        if images.dtype == np.uint8:  # as AIPP in the file has it
            images = (images.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        return self.session.run(["logits"], {"images": images})
"""

TOOL = """
import argparse, os, sys
import numpy as np
from ais_bench.infer.interface import InferSession

parser = argparse.ArgumentParser()
for name in ("model", "input", "output", "output_dirname", "outfmt"):
    parser.add_argument(f"--{name}", required=True)
for name in ("device", "batchsize", "dymBatch", "output_batchsize_axis"):
    parser.add_argument(f"--{name}", type=int, default=0)
told = parser.parse_args()
session = InferSession(told.device, told.model)
names = sorted(os.listdir(told.input))
size = told.dymBatch or session.shape[0]
folder = os.path.join(told.output, told.output_dirname)
os.makedirs(folder)
for start in range(0, len(names), size):
    part = names[start : start + size]
    read = [open(os.path.join(told.input, name), "rb").read() for name in part]
    read += [read[0]] * (size - len(part))
    images = np.frombuffer(b"".join(read), np.float32).reshape(size, *session.shape[1:])
    [logits] = session.infer([images], mode="dymbatch" if told.dymBatch else "static")
    rows = np.array_split(logits, size, told.output_batchsize_axis)
    for name, row in zip(part, rows):
        path = os.path.join(folder, f"{name.split('.')[0]}_0.{told.outfmt.lower()}")
        np.save(path, row) if told.outfmt == "NPY" else row.tofile(path, " " if told.outfmt == "TXT" else "")
open(os.path.join(folder, "sumary.json"), "w").write("{}")
"""

# Both converters: what they are given is what they write, under the name that they are told.
CONVERTER = """#!/bin/sh
for argument in "$@"; do
  case "$argument" in
    --model=*|--modelFile=*) model="${argument#*=}";;
    --output=*) output="${argument#*=}.om";;
    --outputFile=*) output="${argument#*=}.mindir";;
  esac
done
cp "$model" "$output"
"""


def install_converters(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Put atc and converter_lite on PATH, for the chip Ascend910B3."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("atc", "converter_lite"):
        (programs / name).write_text(CONVERTER, encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", prepended("PATH", programs))
    monkeypatch.setenv("WORDMILL_SOC_VERSION", "Ascend910B3")


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Put the doubles where processes started from here find them; return the file that they write their calls to."""
    packages, log = folder / "packages", folder / "calls.log"
    modules = {"mindspore_lite.py": LITE, "ais_bench/infer/interface.py": AIS_BENCH, "ais_bench/__main__.py": TOOL}
    for module, text in modules.items():
        path = packages / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"LOG = {str(log)!r}\n{text}", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", prepended("PYTHONPATH", packages))
    return log
