"""The tests of arithmetic as most laptops see them, on a processor that has more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CPUINFO = Path("/proc/cpuinfo")


def files() -> list[Path]:
    """Return the files with tests marked as arithmetic, so that no other is imported."""
    found = (path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
    return sorted(path for path in found if "pytest.mark.arithmetic" in path.read_text())


def run() -> subprocess.CompletedProcess[str]:
    """Run them with PyTorch's oneDNN held to AVX2, in a process of its own: it reads the variable once."""
    command = [sys.executable, "-m", "pytest", "-m", "arithmetic", "-p", "no:cacheprovider", *map(str, files())]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    held = outer | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=held, capture_output=True, text=True, check=False)


def test_arithmetic_is_marked_in_several_files() -> None:
    assert len(files()) > 3


@pytest.mark.skipif(
    not CPUINFO.exists() or "avx512" not in CPUINFO.read_text(),
    reason="/proc/cpuinfo shows no AVX-512: these tests run without it as they are",
)
def test_arithmetic_holds_without_avx_512() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
