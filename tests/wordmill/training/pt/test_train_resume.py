import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.training.pt.together import losses, resumed, run, together, weights, written
from tests.wordmill.training.tiny import MODEL, NARROW, TRAIN, make_job
from wordmill.recipe.sections import Model, Train
from wordmill.training.job import Job
from wordmill.training.state import read_state, records

LONG = dataclasses.replace(TRAIN, global_batch=12, epochs=2, clip_norm=0.0)  # 5 steps an epoch
SEQ2SEQ = dataclasses.replace(MODEL, name="seq2seq", decoder_hidden=16)
OF_DECODERS = dataclasses.replace(LONG, loss="cross_entropy", teacher_forcing=0.5, lr=1e-3)


def job_in(folder: Path, train: Train, model: Model, processes: int) -> Job:
    folder.mkdir()
    return written(
        dataclasses.replace(make_job(folder, train=train, samples=60, processes=processes, data=NARROW), model=model)
    )


@pytest.mark.parametrize(
    ("processes", "train", "model", "stop_at", "stopped"),
    [
        # In the last step before a validation, which is cut short and the first that the next attempt does.
        (1, dataclasses.replace(LONG, optimizer="lion", lr=1e-4, ema_decay=0.9), MODEL, 5, 5),
        # Asked for in step 7, and seen two steps later.
        (2, dataclasses.replace(OF_DECODERS, ema_decay=0.9, accumulation=2, clip_norm=1.0), SEQ2SEQ, 6, 9),
        # After the first step DistributedDataParallel lays buckets out anew, which three processes' sums show.
        (3, dataclasses.replace(LONG, optimizer="adadelta", lr=1.0, sync_batch_norm=True), MODEL, 6, 9),
    ],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    processes: int, train: Train, model: Model, stop_at: int, stopped: int, tmp_path: Path
) -> None:
    whole, parted = (job_in(tmp_path / name, train, model, processes) for name in ("whole", "parted"))
    together(processes, tmp_path, run, [whole])
    together(processes, tmp_path, run, [parted], stop_at)
    state = read_state(records(parted.folder / "checkpoints")[0])
    assert state.progress.step == stopped
    assert not (parted.folder / "outcome.json").exists()
    rest = resumed(parted, tmp_path / "rest", processes)
    together(processes, tmp_path, run, [rest])
    assert losses(parted) + losses(rest) == losses(whole)
    for name in ("last", "best"):
        path = f"{name}.safetensors"
        assert (rest.folder / path).read_bytes() == (whole.folder / path).read_bytes()
    ends = [read_state(records(job.folder / "checkpoints")[0]).tensors for job in (rest, whole)]
    assert all(np.array_equal(ends[0][name], tensor) for name, tensor in ends[1].items())
    statistics = ends[0]["statistics/backbone.bn1.running_mean"]
    assert len(statistics) == processes
    assert (len(np.unique(statistics, axis=0)) == 1) == (processes == 1 or train.sync_batch_norm)
    for rank in range(1, processes):
        assert all(np.array_equal(weights(rest, rank)[name], weight) for name, weight in weights(rest).items())
    attempts = json.loads((rest.folder / "outcome.json").read_text())["attempts"]
    assert [attempt["step"] for attempt in attempts] == [0, stopped]
