import dataclasses
import json
from pathlib import Path

import pytest

from tests.wordmill.training.tiny import make_job
from wordmill.training.job import read_job, write_job


def test_a_job_reads_back_as_it_was_written(tmp_path: Path) -> None:
    job = make_job(tmp_path, processes=2)
    for path in (None, tmp_path / "some.file"):
        given = dataclasses.replace(job, start=path, resume=path, rendered="synth://words" if path else "")
        write_job(tmp_path / "job.json", given)
        assert read_job(tmp_path / "job.json") == given
    told = json.loads((tmp_path / "job.json").read_text())
    assert (told["train"]["lr"], told["data"]["train"], told["start"]) == (2e-3, ["t"], str(tmp_path / "some.file"))


def test_a_job_that_is_none_is_refused_by_its_key(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    write_job(path, make_job(tmp_path))
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "train": {**told["train"], "lr": "high"}}))
    with pytest.raises(ValueError, match=r"job\.json\.train\.lr: expected float, found str 'high'"):
        read_job(path)
