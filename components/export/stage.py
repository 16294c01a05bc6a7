"""The export stage: writes the trained recogniser in one file format."""

import os
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from components.recognition import checkpoint, frameworks
from components.recognition.artifacts import Manifest, read_manifest
from components.recognition.checkpoint import Checkpoint
from components.recognition.recipe import nearest, to_json
from components.recognition.stages import Made, find_or_make, run_stage
from components.recognition.storage import Store

OM_BATCHES = (1, 16, 64)  # an OM file of an LSTM is dependable for one batch size only, so there is one file for each
LAST_LINES = 10  # of atc's output in an error


def run(*, export_format: str, model: str, run_tag: str, output: str) -> str:
    """Write the trained recogniser in one file format.

    export_format: onnx, mindir or om. model: file with the manifest of train. output: file for this stage's manifest.
    An om file needs CANN's atc and the variable WORDMILL_SOC_VERSION, such as Ascend910B3.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        if export_format not in WRITERS:
            raise ValueError(f"export format '{export_format}': {nearest(export_format, list(WRITERS))}")
        trained = read_manifest(model)
        inputs = {"model": trained.reference}
        framework = "mindspore" if export_format == "mindir" else "pytorch"
        if export_format == "om":
            inputs["soc_version"] = soc_version()

        def make(folder: Path) -> Made:
            return write(export_format, checkpoint.load(store.fetch(trained.object("model.safetensors"))), folder)

        return find_or_make(store, "export", export_format, inputs, make, (frameworks.PACKAGES[framework],))

    return run_stage("export", export_format, run_tag, output, work)


def write(export_format: str, saved: Checkpoint, folder: Path) -> Made:
    """Write the format's files into the folder and say what a program needs to know that runs them."""
    data = saved.data
    files = WRITERS[export_format](saved, folder)
    package = "mindspore" if export_format == "mindir" else "torch"
    facts: dict[str, Any] = {
        "format": export_format,
        "bytes": sum(path.stat().st_size for path in files.values()),
        "input": {"name": "images", "shape": ["N", data.channels, data.height, data.width],
                  "layout": "NCHW", "dtype": "float32", "range": [-1.0, (255 - data.middle) / data.middle]},
        "data": to_json(data),
        "model": to_json(saved.model),
        "charset": data.charset,
        "decode": "ctc greedy, blank 0" if saved.model.name == "crnn" else "attention greedy, GO 0, STOP 1",
        "framework_version": f"{package} {metadata.version(package)}",
    }  # fmt: skip
    if export_format == "om":
        facts |= {"batches": list(OM_BATCHES), "soc_version": soc_version()}
    return Made(files=files, facts=facts)


def write_onnx(saved: Checkpoint, folder: Path) -> dict[str, Path]:
    """Write model.onnx, whatever framework trained the weights."""
    path = folder / "model.onnx"
    frameworks.twin("pytorch", "export").export_onnx(saved, path)
    return {path.name: path}


def write_mindir(saved: Checkpoint, folder: Path) -> dict[str, Path]:
    """Write model.mindir, whatever framework trained the weights."""
    path = folder / "model.mindir"
    frameworks.twin("mindspore", "export").export_mindir(saved, path)
    return {path.name: path}


def write_om(saved: Checkpoint, folder: Path) -> dict[str, Path]:
    """Write one OM file per batch size for the chip that WORDMILL_SOC_VERSION names."""
    atc = shutil.which("atc")
    if atc is None:
        raise RuntimeError("format om: CANN's atc is not on PATH: install CANN and source its set_env.sh, "
                           "or take om out of the recipe's export.formats")  # fmt: skip
    onnx = write_onnx(saved, folder)["model.onnx"]
    return {f"model_b{batch}.om": convert(atc, onnx, saved, batch) for batch in OM_BATCHES}


def convert(atc: str, onnx: Path, saved: Checkpoint, batch: int) -> Path:
    """Convert an ONNX file for one batch size with atc and return the OM file."""
    stem = onnx.with_name(f"model_b{batch}")
    shape = ",".join(map(str, (batch, saved.data.channels, saved.data.height, saved.data.width)))
    command = [atc, f"--model={onnx}", "--framework=5", f"--output={stem}", "--input_format=NCHW",
               f"--input_shape=images:{shape}", f"--soc_version={soc_version()}", "--log=error"]  # fmt: skip
    done = subprocess.run(command, cwd=onnx.parent, capture_output=True, text=True, errors="replace", check=False)
    # On another processor's system atc adds that system's name to the file's.
    made = [path for path in sorted(onnx.parent.glob(f"{stem.name}*.om")) if path.stat().st_size]
    if done.returncode or not made:
        what = f"ended with code {done.returncode}" if done.returncode else f"ended well but wrote no {stem.name}.om"
        said = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise RuntimeError(f"format om: {' '.join(command)} {what}: {said}")
    return made[0]


def soc_version() -> str:
    """Return the name of the chip that OM files are made for."""
    name = os.environ.get("WORDMILL_SOC_VERSION")
    if not name:
        raise RuntimeError("format om: WORDMILL_SOC_VERSION is not set: it names the chip, such as Ascend910B3: "
                           "'Ascend' and the name that npu-smi info shows")  # fmt: skip
    return name


WRITERS: dict[str, Callable[[Checkpoint, Path], dict[str, Path]]] = {
    "onnx": write_onnx,
    "mindir": write_mindir,
    "om": write_om,
}
