"""What the C++ example makes of logits, compiled with the standard library alone, beside what Python does."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from wordmill.text.charset import Charset
from wordmill.text.decoding import AttentionCodec, Codec, CtcCodec
from wordmill.text.positions import characters, in_picture

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = Charset(name="three", symbols="aé中")
PROGRAM = r"""
#include <cstdio>
#include <cstdlib>

#include "decoding.hpp"

// STEPS CLASSES CTC STRAIGHTENED FILLED TEMPERATURE SYMBOLS, and the logits from standard input.
int main(int, char** given) {
  const int steps = std::atoi(given[1]), classes = std::atoi(given[2]);
  std::vector<float> logits(steps * classes);
  for (float& value : logits)
    if (std::scanf("%f", &value) != 1) return 1;
  wordmill::Rule rule;
  rule.ctc = std::atoi(given[3]);
  rule.first = rule.ctc ? 1 : 2;
  rule.temperature = std::atof(given[6]);
  rule.symbols = wordmill::characters_of(given[7]);
  const auto found = wordmill::read(logits.data(), steps, classes, rule, std::atoi(given[4]), std::atof(given[5]));
  std::printf("%.6f\n", wordmill::confidence_of(found));
  for (const auto& one : found)
    std::printf("%s %.6f %d %.6f %.6f\n", one.text.c_str(), one.confidence, one.placed, one.start, one.end);
}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program around the example's header, built here."""
    if not (compiler := shutil.which("c++")):
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("decoding")
    (folder / "main.cpp").write_text(PROGRAM)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "examples" / "cpp")]
    subprocess.run([compiler, *flags, str(folder / "main.cpp"), "-o", str(folder / "main")], check=True)
    return folder / "main"


def run(program: Path, logits: np.ndarray, codec: Codec, straightened: bool = False, filled: float = 1.0) -> list[str]:
    asked = [*logits.shape, int(isinstance(codec, CtcCodec)), int(straightened), filled, codec.temperature]
    given = " ".join(map(repr, logits.ravel().tolist()))
    command = [program, *map(str, asked), SYMBOLS.symbols]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("codec", [CtcCodec(charset=SYMBOLS, temperature=1.5), AttentionCodec(charset=SYMBOLS)])
def test_characters_are_those_of_python(program: Path, codec: Codec) -> None:
    rng = np.random.default_rng(5)
    lengths = set()
    for number in range(30):
        classes = 4 if isinstance(codec, CtcCodec) else 5
        logits = rng.normal(0, 3, (int(rng.integers(1, 12)), classes)).astype(np.float32)
        filled = float(rng.uniform(0.5, 1)) if number % 2 else 1.0
        sure, *lines = run(program, logits, codec, filled=filled)
        assert float(sure) == pytest.approx(codec.decode(logits[None])[1][0], abs=1e-5)
        expected = in_picture(characters(logits[None], codec)[0], filled)
        found = [line.split() for line in lines]
        assert [text for text, *_ in found] == [one.text for one in expected]
        lengths.add(len(found))
        for (_, confidence, placed, start, end), one in zip(found, expected, strict=True):
            assert float(confidence) == pytest.approx(one.confidence, abs=1e-5)
            assert placed == str(int(one.start is not None))
            if one.start is not None:
                assert [float(start), float(end)] == pytest.approx([one.start, one.end], abs=1e-5)
    assert len(lengths) > 3


def test_a_straightened_pictures_characters_have_no_places(program: Path) -> None:
    logits = np.log(np.float32([[0.1, 0.7, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]))
    sure, *lines = run(program, logits, CtcCodec(charset=SYMBOLS), straightened=True)
    assert float(sure) == pytest.approx(0.7, abs=1e-5)
    assert lines == ["a 0.700000 0 0.000000 0.000000", "中 0.700000 0 0.000000 0.000000"]


def test_places_are_those_that_are_worked_out_by_hand(program: Path) -> None:
    logits = np.log(np.float32([[0.1, 0.7, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]))
    _, *lines = run(program, logits, CtcCodec(charset=SYMBOLS))
    # Middles of frames 1 and 3 of 3 are at 1/6 and 5/6, half way is 1/2; as far on their other sides is the edge.
    assert lines == ["a 0.700000 1 0.000000 0.500000", "中 0.700000 1 0.500000 1.000000"]
