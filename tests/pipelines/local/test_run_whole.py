"""The whole pipeline on real components: the run that `make run` makes, on very little data."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from mlflow import MlflowClient

from tests.waiting import LIMIT_S

ROOT = Path(__file__).resolve().parents[3]
WORDS = ["mill", "word", "stone", "grain", "42", "flour", "wheel", "water"]
LITTLE_DATA = ("data.limit=512", "data.train=[rendered_train, my_scraps]")
OUTSIDE = ("WORDMILL_", "AWS_", "MLFLOW_")


def own_data(folder: Path) -> Path:
    """Write a catalogue of two zips of 16 drawn words and a label file each, one picture of the second broken."""
    entries = []
    for name, broken in (("my_words", ""), ("my_scraps", "crops/0.png")):
        archive = folder / f"{name}.zip"
        write_words(archive, broken)
        source = f"source: 'file://{archive}', reader: label_file, labels: labels.txt, label_format: space"
        entries.append(f"{name}: {{{source}, samples: 16, licence: own}}\n")
    catalogue = folder / "mine.yaml"
    catalogue.write_text("".join(entries), encoding="utf-8")
    return catalogue


def write_words(archive: Path, broken: str) -> None:
    """Draw words into a zip; the file called `broken` is no picture."""
    with zipfile.ZipFile(archive, "w") as file:
        lines = []
        for i in range(16):
            word = WORDS[i % len(WORDS)]
            image = np.full((40, 20 * len(word) + 20, 3), 255, np.uint8)
            cv2.putText(image, word, (8, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2)
            name = f"crops/{i}.png"
            file.writestr(name, b"not a picture" if name == broken else cv2.imencode(".png", image)[1].tobytes())
            lines.append(f"{name} {word}")
        file.writestr("labels.txt", "\n".join(lines) + "\n")


class Place:
    """A state folder of its own and runs in it."""

    def __init__(self, folder: Path) -> None:
        self.catalogue = own_data(folder)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(OUTSIDE)}
        self.state = folder / "a state"  # a path with a space
        self.environment["WORDMILL_STATE"] = str(self.state)

    def pipelines(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipelines", *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def start(self, *changes: str) -> subprocess.Popen[str]:
        return self.pipelines(
            "run", "quickstart", "--smoke", "--catalogue", str(self.catalogue), "--benchmarks", "my_words",
            *(part for change in (*LITTLE_DATA, *changes) for part in ("--set", change)),
        )  # fmt: skip

    def run(self, *changes: str) -> tuple[int, str]:
        process = self.start(*changes)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def mlflow(self) -> MlflowClient:
        port = json.loads((self.state / "mlflow.json").read_text())["port"]
        return MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("run"))
    yield place
    place.pipelines("down").wait(LIMIT_S)


@pytest.fixture(scope="module")
def first(place: Place) -> tuple[str, dict[str, Any]]:
    """The output and the summary of a first run."""
    code, output = place.run()
    assert code == 0, output
    return output, json.loads(Path(output.splitlines()[-1]).read_text(encoding="utf-8"))


def test_a_run_ends_with_its_summary(first: tuple[str, dict[str, Any]]) -> None:
    output, summary = first
    assert summary["ok"]
    assert summary["errors"] == []
    (row,) = summary["benchmarks"]
    assert (row["name"], row["total"]) == ("my_words", 16)
    assert "shard my_scraps  16/16 images  100.0 %" in output
    assert "1 put aside" in output  # the broken picture of a training set
    assert {entry["format"]: entry["texts_equal"] for entry in summary["formats"]} == {"mindir": 32, "onnx": 32}
    assert summary["gate"]["reasons"] == ["gate.promote is false: a smoke run is never champion"]
    assert summary["loss"]["last"] < summary["loss"]["first"]
    assert Path(summary["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert summary["versions"]["torch"].startswith("2.13")
    assert "train  520/520 images  100.0 %" in output  # 65 steps of 8: one picture of 528 is broken
    assert "my_words" in output


def test_one_mlflow_run_holds_everything(place: Place, first: tuple[str, dict[str, Any]]) -> None:
    summary = first[1]
    client = place.mlflow()
    run = client.get_run(summary["mlflow"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["benchmark/my_words/accuracy"] == summary["benchmarks"][0]["accuracy"]
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) >= 1
    assert run.data.params["train.lr"] == "0.016"
    assert {"wordmill.recipe", "wordmill.gate", "mlflow.source.git.commit", "mlflow.note.content"} <= set(run.data.tags)
    assert "report.html" in {file.path for file in client.list_artifacts(run.info.run_id)}


@pytest.fixture(scope="module")
def again(place: Place, first: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    """The tag of a run that was killed, and the output of the first run once more behind it."""
    process = place.start("train.seed=44")
    deadline = time.monotonic() + LIMIT_S
    bucket, marker = place.state / "s3" / "wordmill" / "runs", Path()
    while not (bucket / marker.parent.name / "mlflow.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
        marker = next((place.state / "runs").glob("*/open"), Path())
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    process.wait(LIMIT_S)
    code, output = place.run()
    assert code == 0, output
    return marker.parent.name, output


def test_an_unchanged_run_finds_every_stage_finished(first: tuple[str, dict[str, Any]], again: tuple[str, str]) -> None:
    found = json.loads(Path(again[1].splitlines()[-1]).read_text(encoding="utf-8"))
    made = {stage["stage"] for stage in found["stages"] if not stage["found"]}
    assert made <= {"gate", "report"}  # they look at the registry and at the run, which are outside of any digest
    assert found["digests"] == first[1]["digests"]
    assert found["benchmarks"] == first[1]["benchmarks"]


def test_a_killed_run_is_marked_failed_by_the_next(again: tuple[str, str]) -> None:
    killed, output = again
    assert f"run {killed} was killed: marked as failed in MLflow" in output


def command_of(process: psutil.Process) -> str:
    """Return a process's command line, nothing where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_killed_stage_leaves_a_failed_run(place: Place, first: tuple[str, dict[str, Any]]) -> None:
    process = place.start("train.seed=43")
    deadline = time.monotonic() + LIMIT_S
    workers: list[psutil.Process] = []
    while not workers and time.monotonic() < deadline:
        time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "wordmill.training.worker" in command_of(child)]
    workers[0].parent().send_signal(signal.SIGKILL)  # the stage: killed workers it starts again
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    summary = json.loads((max((place.state / "runs").iterdir()) / "summary.json").read_text(encoding="utf-8"))
    assert summary["ok"] is False
    assert place.mlflow().get_run(summary["mlflow"]["run_id"]).info.status == "FAILED"


def test_bad_data_ends_the_run_with_one_line(place: Place, first: tuple[str, dict[str, Any]]) -> None:
    text = place.catalogue.read_text(encoding="utf-8")
    place.catalogue.write_text(text.replace("samples: 16", "samples: 17", 1), encoding="utf-8")
    try:
        code, output = place.run()
    finally:
        place.catalogue.write_text(text, encoding="utf-8")
    assert code == 1
    (line,) = {line.strip() for line in output.splitlines() if line.startswith("error: ")}
    assert "my_words" in line
    assert "17" in line
    assert "16" in line


@pytest.mark.slow
def test_the_same_recipe_trains_in_mindspore(place: Place) -> None:
    code, output = place.run("train.framework=mindspore")
    assert code == 0, output
    summary = json.loads(Path(output.splitlines()[-1]).read_text(encoding="utf-8"))
    assert summary["framework"] == "mindspore"
    assert summary["training"]["steps"] == 65  # of 8 pictures, of which 512 are rendered and 15 drawn
    assert {entry["format"]: entry["texts_equal"] for entry in summary["formats"]} == {"mindir": 32, "onnx": 32}


@pytest.mark.slow
def test_quickstart_learns_to_read(place: Place) -> None:
    process = place.pipelines("run", "quickstart")
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output
    summary = json.loads(Path(output.splitlines()[-1]).read_text(encoding="utf-8"))
    assert {row["name"]: row["total"] for row in summary["benchmarks"]} == {
        "rendered_easy": 2000,
        "rendered_hard": 2000,
    }
    assert summary["benchmarks"][0]["accuracy"] > 0.5
    assert summary["gate"]["promoted"] is True
