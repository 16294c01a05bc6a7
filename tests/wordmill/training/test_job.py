import dataclasses
from pathlib import Path

from tests.wordmill.training.tiny import make_job
from wordmill.training.job import read_job, write_job


def test_a_job_reads_back_as_it_was_written(tmp_path: Path) -> None:
    job = make_job(tmp_path, processes=2)
    for path in (None, tmp_path / "some.file"):
        given = dataclasses.replace(job, start=path, resume=path, rendered="synth://words" if path else "")
        write_job(tmp_path / "job.json", given)
        assert read_job(tmp_path / "job.json") == given
