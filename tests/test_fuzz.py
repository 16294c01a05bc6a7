"""What reads strangers' bytes, on inputs that are changed at random: nothing ends the process, hangs or takes much."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fuzzed import KINDS, changed, fuzz

ROOT = Path(__file__).resolve().parents[1]
SEED, LIMIT_S, MOST_MIB = 20, 300, 1024
# Inputs of about a minute each; the first few are tried with every change of the code.
COUNTS = {"images": 60_000, "archives": 15_000, "label_files": 30_000, "lmdbs": 15_000, "tfrecords": 30_000,
          "checkpoints": 30_000, "foreign": 30_000, "pickles": 30_000, "torch_files": 15_000, "recipes": 3_000,
          "charsets": 30_000, "bodies": 15_000}  # fmt: skip


def test_every_kind_has_its_count() -> None:
    assert COUNTS.keys() == KINDS.keys()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "foreign"])  # for which MindSpore is imported
def test_a_few_changed_inputs_are_read_or_refused(kind: str) -> None:
    assert 0 <= fuzz(kind, SEED, 40) <= 40


def test_an_input_is_made_again_by_its_seed_and_number() -> None:
    one, other = (changed(b"some content of a file" * 9, np.random.default_rng((SEED, 7))) for _ in range(2))
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_changed_inputs_end_no_process(kind: str) -> None:
    command = [sys.executable, "-m", "tests.fuzzed", kind, str(SEED), str(COUNTS[kind])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(rf"{kind}: {COUNTS[kind]} inputs, (\d+) refused; (\d+) MiB", done.stdout)
    assert found
    assert int(found[2]) < MOST_MIB
