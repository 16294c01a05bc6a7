"""A signal stops training wherever it comes, in a destructor too, where Python drops what is raised."""

import io
import signal
import time
from pathlib import Path

import pytest

from components.train import workers
from components.train.gang import job as cluster_job
from components.train.gang.job import Follower
from components.train.stopping import raise_if_stopped, sigterm_as_error
from tests.components.train.test_workers import fake_job
from wordmill.store.stages import StoppedError


class Response(io.RawIOBase):
    """A signal comes while this is thrown away, as a reply of Kubernetes's may be."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            signal.raise_signal(signal.SIGTERM)


def throw_away(*_: object) -> None:
    Response()


def test_a_signal_that_a_destructor_has_swallowed_is_remembered_to_the_end_of_the_block() -> None:
    def swallow() -> None:
        with sigterm_as_error():  # a node's own
            throw_away()
            with sigterm_as_error():  # its workers'
                raise_if_stopped()

    with pytest.raises(StoppedError, match="training was stopped by SIGTERM"):
        swallow()
    raise_if_stopped()
    with sigterm_as_error():
        throw_away()
    raise_if_stopped()


def test_whoever_follows_a_job_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = iter([throw_away, lambda _: pytest.fail("it goes on")])
    monkeypatch.setattr(time, "sleep", lambda left_s: next(sleeps)(left_s))
    follower = Follower.__new__(Follower)
    monkeypatch.setattr(cluster_job.Follower, "renew", lambda _: None)
    monkeypatch.setattr(cluster_job.Follower, "look", lambda _: None)
    with pytest.raises(StoppedError, match="training was stopped by SIGTERM"), sigterm_as_error():
        follower.run()


def test_whoever_watches_workers_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, looks = fake_job(tmp_path, "import time; time.sleep(5)", monkeypatch), iter([throw_away])
    with pytest.raises(StoppedError, match="training was stopped by SIGTERM"):
        workers.run_workers(job, lambda: next(looks, lambda: None)(), lambda _: None)
