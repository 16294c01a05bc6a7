from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.training.tiny import DATA, MODEL, TRAIN, write_set
from wordmill.shards.loader import ordered_batches
from wordmill.shards.mixing import Mixture
from wordmill.text.decoding import codec_of
from wordmill.training.context import training_set
from wordmill.training.job import Job

LABELS = ("a", "be", "cat", "door")


def test_samples_that_are_left_out_and_labels_that_do_not_fit_are_not_learnt(tmp_path: Path) -> None:
    sets = tuple(write_set(tmp_path / name, 4, LABELS) for name in ("one", "two"))
    job = Job(data=DATA, model=MODEL, train=TRAIN, train_sets=sets, val_sets=(), start=None, device="cpu",
              processes=1, folder=tmp_path)  # fmt: skip
    for path, numbers in (("0.npy", [1, 3]), ("1.npy", [0])):
        np.save(tmp_path / path, np.array(numbers, dtype=np.int64))
    codec = codec_of(MODEL, DATA)

    def learnt(job: Job) -> tuple[list[str], int]:
        kept, unfit = training_set(job, codec, 3)  # door needs five steps
        return [label for batch in ordered_batches(kept, 8) for label in batch.labels], unfit

    assert learnt(job) == (["a", "be", "cat", "a", "be", "cat"], 2)
    left_out = replace(job, left_out=(tmp_path / "0.npy", tmp_path / "1.npy"))
    assert learnt(left_out) == (["a", "cat", "be", "cat"], 2)


@pytest.mark.parametrize("left_out", [(), (5, 7)])
def test_a_part_lies_within_a_larger_one_and_leaves_an_epoch_as_long(left_out: tuple[int, ...], tmp_path: Path) -> None:
    sets = (write_set(tmp_path / "own", 16, tuple(f"w{number}" for number in range(16))), write_set(tmp_path / "t", 8))
    data = replace(DATA, train=("own", "t"), shares={"own": 0.5, "t": 0.5})
    job = Job(data=data, model=MODEL, train=TRAIN, train_sets=sets, val_sets=(), start=None, device="cpu",
              processes=1, folder=tmp_path)  # fmt: skip
    if left_out:
        for name, numbers in (("own.npy", left_out), ("t.npy", ())):
            np.save(tmp_path / name, np.array(numbers, dtype=np.int64))
        job = replace(job, left_out=(tmp_path / "own.npy", tmp_path / "t.npy"))
    learnt = []
    for fraction in (0.01, 0.25, 0.5, 1.0):
        part = replace(job, data=replace(data, fractions={"own": fraction}))
        mixture, _ = training_set(part, codec_of(MODEL, data), 25)
        assert isinstance(mixture, Mixture)
        assert (mixture.samples, mixture.sets[1].samples) == (24 - len(left_out), 8)
        short, _ = training_set(replace(part, data=replace(part.data, epoch_samples=16)), codec_of(MODEL, data), 25)
        assert short.samples == 16
        learnt.append({label for batch in ordered_batches(mixture.sets[0], 8) for label in batch.labels})
    whole = 16 - len(left_out)
    assert [len(labels) for labels in learnt] == [1, round(whole / 4), whole // 2, whole]
    assert learnt[0] < learnt[1] < learnt[2] < learnt[3]
    assert not learnt[3] & {f"w{number}" for number in left_out}
