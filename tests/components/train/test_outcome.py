"""The trace of a profiled training, read as a viewer reads it: by the format of Chrome's trace events alone."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.components.train.killing import StageProcess
from tests.components.train.test_stage import combined_manifest
from tests.wordmill.training.tiny import TRAIN
from wordmill.store.storage import Store

pytestmark = pytest.mark.slow

STEPS = 3
# What stands in the trace once for each step and part: an operator of the loss, or its kernel.
MARKS = {"pytorch": "aten::ctc_loss", "mindspore": "CTCLossV2-op"}


def opened(path: Path) -> list[dict[str, Any]]:
    """Read a trace as Perfetto and chrome://tracing do: an object with traceEvents, or the bare list of them."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    document = json.loads(content)
    return list(document["traceEvents"] if isinstance(document, dict) else document)


def slices(events: list[dict[str, Any]]) -> dict[tuple[str, str], list[tuple[float, float, str]]]:
    """Return the complete events (begin, end, name) of each thread, by begin, longer ones first: microseconds."""
    found: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for event in events:
        if event["ph"] == "X":
            begin = float(event["ts"])
            found.setdefault((str(event["pid"]), str(event["tid"])), []).append(
                (begin, begin + float(event["dur"]), event["name"])
            )
    return {thread: sorted(entries, key=lambda entry: (entry[0], -entry[1])) for thread, entries in found.items()}


def overlapping(entries: list[tuple[float, float, str]], slack_us: float = 1.0) -> list[str]:
    """Return the names of slices that end after one that they began in: viewers draw those wrongly."""
    open_ends: list[float] = []
    wrong = []
    for begin, end, name in entries:
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        if open_ends and end > open_ends[-1] + slack_us:
            wrong.append(name)
        open_ends.append(end)
    return wrong


@pytest.mark.parametrize("framework", ["pytorch", "mindspore"])
def test_a_viewer_opens_the_trace_of_a_profiled_training(
    framework: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train = dataclasses.replace(TRAIN, framework=framework, epochs=5, profile=STEPS)
    process = StageProcess(store, combined_manifest(store, tmp_path), train, tmp_path)
    try:
        manifest = process.manifest()
    finally:
        process.stop()
    traces = [
        entry for entry in manifest.objects if entry.name.startswith("trace/") and "trace" in Path(entry.name).name
    ]
    assert len(traces) == 1, [entry.name for entry in manifest.objects]
    content = store.fetch(traces[0])
    path = tmp_path / Path(traces[0].name).name
    path.write_bytes(content.read_bytes())
    threads = slices(opened(path))
    names = [name for entries in threads.values() for _, _, name in entries]
    assert sum(MARKS[framework] in name for name in names) >= STEPS
    assert all(end >= begin for entries in threads.values() for begin, end, _ in entries)
    assert {thread: wrong for thread, entries in threads.items() if (wrong := overlapping(entries))} == {}
