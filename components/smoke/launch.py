"""Starts the probe of an exported file and reads its answer."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.smoke.job import ProbeJob
from wordmill.recipe import frameworks
from wordmill.store.artifacts import ROOT
from wordmill.store.children import tied
from wordmill.store.files import write_atomically

PROBE_LIMIT_S = 600
LAST_LINES = 5  # of the probe's output in an error

Outputs = dict[int, dict[str, npt.NDArray[Any]]]  # by size of batch, then by name


def run_probe(job: ProbeJob, folder: Path) -> tuple[dict[str, Any], Outputs]:
    """Run files in a process of their own; return what was measured and what they gave for the reference images.

    RuntimeError names the format and what its runtime said.
    """
    told, answer, outputs = folder / "job.json", folder / "answer.json", folder / "outputs.npz"
    write_atomically(told, json.dumps(asdict(job)))
    done = _start(job.format, [str(told), str(answer), str(outputs)])
    if not answer.exists():
        said = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        raise RuntimeError(f"format {job.format}: its runtime ended with code {done.returncode}: {said}")
    found = json.loads(answer.read_text(encoding="utf-8"))
    if "missing" in found:
        raise RuntimeError(f"{found['missing']}, or take {job.format} out of the recipe's export")
    if "error" in found:
        raise RuntimeError(f"format {job.format}: the file does not run: {found['error']}")
    return found, _outputs(outputs)


def _start(export_format: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the probe to its end; RuntimeError where it does not come to one."""
    framework = "mindspore" if export_format == "mindir" else "pytorch"
    search = frameworks.prepended("PYTHONPATH", ROOT)
    variables = frameworks.environment(framework, "cpu") | {"PYTHONPATH": search}
    command = tied([sys.executable, "-m", "components.smoke.probe", *arguments])
    try:
        return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, errors="replace",
                              timeout=PROBE_LIMIT_S, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"format {export_format}: its runtime did not finish within {PROBE_LIMIT_S} s") from None


def _outputs(path: Path) -> Outputs:
    found: Outputs = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            size, _, name = key.partition(".")
            found.setdefault(int(size), {})[name] = arrays[key]
    return found
