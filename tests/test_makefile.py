"""What make's verbs run: a path with spaces or an apostrophe stays one word on its way from what is typed."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What is typed behind `make`, word by word -> what it runs behind `python -m pipelines`.
TYPED = {
    ("run", "CATALOGUE=my words.yaml"): ["run", "quickstart", "--catalogue", "my words.yaml"],
    ("run", "RECIPE=my recipe.yaml"): ["run", "my recipe.yaml"],
    ("run", "SET=train.epochs=2 data.max_label=9"): (
        ["run", "quickstart", "--set", "train.epochs=2", "--set", "data.max_label=9"]
    ),
    ("run", "FROM=mj=/data/mj st=s3://b/st.zip"): (
        ["run", "quickstart", "--from", "mj=/data/mj", "--from", "st=s3://b/st.zip"]
    ),
    ("run", "SMOKE=0", "TRACE=1", "NIGHTLY=1"): ["run", "quickstart", "--profile", "--nightly"],
    ("submit", "PIPELINE=small", "NIGHTLY=1", "WAIT=1"): ["submit", "small", "--nightly", "--wait"],
    ("submit", "PIPELINE=small", "RUN_TAG=small-1 (2)"): ["submit", "small", "--run-tag", "small-1 (2)"],
    ("compile", "PIPELINE=my recipe.yaml"): ["compile", "my recipe.yaml"],
    ("read", "IMAGES=my words", "MODEL=a b/model.onnx", "OUTPUT=c d.jsonl"): (
        ["read", "my words", "--recipe", "quickstart", "--model", "a b/model.onnx", "--output", "c d.jsonl"]
    ),
    ("evaluate", "DATA=my words", "MODEL=a b/model.onnx", "LABELS=my labels.txt", "PROTOCOL=dtrb"): (
        [
            "evaluate",
            "my words",
            "--recipe",
            "quickstart",
            "--model",
            "a b/model.onnx",
            "--protocol",
            "dtrb",
            "--labels",
            "my labels.txt",
        ]
    ),
    ("charset", "DATA=my words", "CATALOGUE=my words.yaml"): (
        ["charset", "my words", "--recipe", "quickstart", "--catalogue", "my words.yaml"]
    ),
    ("tune", "DATA=my words", "CATALOGUE=my words.yaml", "SET=train.lr=0.1"): (
        ["tune", "my words", "--recipe", "quickstart", "--catalogue", "my words.yaml", "--set", "train.lr=0.1"]
    ),
    ("tune", "DATA=my words", "CURVE=0"): ["tune", "my words", "--recipe", "quickstart", "--no-curve"],
    ("pseudo", "IMAGES=my crops", "WRONG=0.05", "TRAIN=0", "BENCHMARKS=mine"): (
        ["pseudo", "my crops", "--recipe", "quickstart", "--most-wrong", "0.05", "--no-train", "--benchmarks", "mine"]
    ),
    ("sweep", "DAYS=60", "DELETE=1"): ["sweep", "--days", "60", "--delete"],
    ("read", "IMAGES=Ann's (2)", "MODEL=Ann's.onnx"): (
        ["read", "Ann's (2)", "--recipe", "quickstart", "--model", "Ann's.onnx"]
    ),
    ("tune", "DATA=Ann's", "FROM=mj=/Ann's/mj", "SET=data.charset=lower36+/Ann's/c.txt"): (
        [
            "tune",
            "Ann's",
            "--recipe",
            "quickstart",
            "--from",
            "mj=/Ann's/mj",
            "--set",
            "data.charset=lower36+/Ann's/c.txt",
        ]
    ),
    ("accept", "SOURCE=file:///my words.zip"): ["accept", "file:///my words.zip"],
    ("schedule", "CRON=0 30 2 * * *"): ["schedule", "crnn_vgg7", "--cron", "0 30 2 * * *"],
    ("compare", "RUNS=a b"): ["compare", "a", "b"],
    ("serve", "MODEL=a b/model.onnx", "PORT=80"): (
        ["serve", "--recipe", "quickstart", "--model", "a b/model.onnx", "--port", "80"]
    ),
    ("models", "FORMAT=json"): ["models", "--json"],
}


@pytest.mark.parametrize("typed", TYPED, ids=" ".join)
def test_a_verb_hands_on_what_is_typed(typed: tuple[str, ...], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n", encoding="utf-8")
    python.chmod(0o755)
    command = ["make", "--assume-old=.venv/local.done", f"BIN={tmp_path}", *typed]
    environment = {"PATH": os.environ["PATH"]}  # nothing of a make that runs the tests
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["-m", "pipelines", *TYPED[typed]]
