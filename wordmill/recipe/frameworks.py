"""The explicit choice of framework and device, and what their processes need."""

import ctypes
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

Framework = Literal["pytorch", "mindspore"]
Device = Literal["cpu", "cuda", "npu"]

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's mallopt, malloc.h
MOST = 2**31 - 1

# MindSpore's protobuf modules are too old for protobuf's C implementation, which is three times as fast.
PROTOBUF = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
PACKAGES = {"pytorch": "pt", "mindspore": "ms"}  # of the rooms that have twins: models and training


def twin(framework: str, module: str) -> ModuleType:
    """Import a framework's side of a twin: `twin("pytorch", "models.predict")`."""
    if framework not in PACKAGES:
        raise ValueError(f"framework '{framework}': expected one of {', '.join(PACKAGES)}")
    prepare(framework)
    room, _, name = module.partition(".")
    return importlib.import_module(f"wordmill.{room}.{PACKAGES[framework]}.{name}")


def prepare(framework: str) -> None:
    """Set the variables that this process needs before it imports a framework."""
    needed = environment(framework, "cpu")
    os.environ.update({name: value for name, value in needed.items() if name != "PATH"})


def leave_room_for_mindspore() -> None:
    """Choose protobuf in Python for this process: MindSpore loads behind it, where kfp or MLflow brought it along."""
    os.environ.update(PROTOBUF)


def check_device(device: str) -> None:
    """Refuse a device name that is not known."""
    if device not in get_args(Device):
        raise ValueError(f"device '{device}': expected one of {', '.join(get_args(Device))}")


def environment(framework: str, device: str, processes: int = 1) -> dict[str, str]:
    """Return the variables that a process of this framework needs before it imports it.

    MindSpore's oneDNN picks reference convolutions on AVX-512 processors, over 100 times slower than what it
    picks when it is held to AVX2; PyTorch must not be held, it would lose bfloat16.
    """
    variables = {"OMP_WAIT_POLICY": "PASSIVE"}
    if device == "cpu" and processes > 1:
        variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    if framework == "mindspore":
        variables |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "GLOG_v": "3"} | PROTOBUF
        variables["PATH"] = prepended("PATH", Path(sys.executable).parent)  # msrun starts the first `python` there
    return variables


def keep_freed_memory() -> None:
    """Have glibc hold on to the memory that this process frees, for what it takes next.

    It gives large arrays back to the system at once: a network's, which come again with every batch, would each time be
    mapped anew and filled with zeros, for up to half of the time of a pass.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, MOST)


def prepended(variable: str, folder: Path) -> str:
    """Return the value of a search path's variable, such as PATH, with a folder in front."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))
