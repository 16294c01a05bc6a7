"""The service against its own description: hundreds of requests that fit it, or do not, by Schemathesis."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.components.export.exported import write_onnx
from tests.components.serve.server import serving
from wordmill.inference.packaged.pyfunc import open_onnx

pytestmark = pytest.mark.slow

EXAMPLES = 300
TIMEOUT_S = 1800
# A string in base64 fits the description, whether it is a picture is not said there; 413 is a refusal too.
CONFIG = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 405, 406, 408, 413, 415, 422, 431]
"""


def test_every_answer_is_as_described(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    write_onnx(tmp_path / "model")
    (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    program = Path(sys.executable).with_name("schemathesis")
    with serving(open_onnx(tmp_path / "model" / "card.json")) as url:
        options = ["--seed", "1", "--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--no-color"]
        command = [program, "--config-file", tmp_path / "schemathesis.toml", "run", f"{url}/openapi.json", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "Tested: 3" in done.stdout
