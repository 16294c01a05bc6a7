"""Training runs that are interrupted: what is done again, what is said, and where everything is afterwards."""

import dataclasses
import os
import re
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from components.train import mirror, workers
from components.train.attempts import counted, forbid_memory, train_to_end
from components.train.memory import Machine, ShortOfMemoryError
from components.train.outcome import collect
from components.train.watch import Sender
from tests.components.train.fake_worker import SILENT_S, STEPS
from tests.components.train.gang.kube_api import Cluster, serving
from tests.waiting import LIMIT_S, wait_until
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.recipe.sections import Train
from wordmill.store import pods
from wordmill.store.stages import OTHER_CODE, StoppedError
from wordmill.store.storage import Store
from wordmill.training.job import Job
from wordmill.training.state import records

WEIGHT = STEPS * (STEPS + 1) / 2


class Silent(Sender):
    """Keeps the points instead of sending them."""

    def __init__(self, run_tag: str = "") -> None:
        self.run_tag = run_tag or uuid.uuid4().hex
        self.points: list[tuple[str, float, int, float]] = []

    def send(self, points: list[tuple[str, float, int, float]]) -> None:
        self.points += points

    def send_usage(self) -> None:
        """Nothing is measured."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((workers, "LOOK_EVERY_S"), (mirror, "LOOK_EVERY_S"), (mirror, "RETRY_S")):
        monkeypatch.setattr(module, name, 0.05)
    monkeypatch.setattr(workers, "GRACE_S", LIMIT_S)


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """Return a job whose attempts do what the given lines say, see tests/components/train/fake_worker.py."""

    def make(*plan: str, train: Train = TRAIN, processes: int = 1) -> Job:
        told = tmp_path / "plan"
        told.write_text("\n".join(plan))
        command = [sys.executable, "-m", "tests.components.train.fake_worker"]
        monkeypatch.setattr(workers, "launch", lambda *given: [*command, str(given[3]), str(told)])
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        return Job(data=DATA, model=MODEL, train=train, train_sets=(), val_sets=(), start=None, device="cpu",
                   processes=processes, folder=folder)  # fmt: skip

    return make


def stored(store: Store) -> list[str]:
    """The names of all that runs of the identity k have in the store, whatever their code and processes."""
    return [key.removeprefix("checkpoints/k/").partition("/")[2] for key in store.keys("checkpoints/k/")]


def test_a_killed_worker_is_started_again_from_the_newest_checkpoint(
    launch: Callable[..., Job], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job, sender = launch("kill 3", "kill 7", "run 0"), Silent()
    train_to_end(store, job, "k", sender)
    made = collect(job)
    assert made.facts["weight"] == WEIGHT
    loss = [(step, value) for step, value, _ in made.curves["train/loss"]]
    assert loss == [(step, 1 / step) for step in range(1, STEPS + 1)]  # 3 and 7 once, as they were done again
    assert [step for step, *_ in made.curves["train/unfit_labels"]] == [0, 2, 6]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("train: goes on")] == [
        "train: goes on after step 2 of 8 (checkpoint of 1 hour ago, made with 1 process)",
        "train: goes on after step 6 of 8 (checkpoint of 1 hour ago, made with 1 process)",
    ]
    assert lines[0] == "train: 3 samples are left out: their labels do not fit the recogniser"
    assert len([line for line in lines if line.startswith("warning: training failed with code -9")]) == 2
    assert made.files["log.txt"].read_text().count("--- launcher.log") == 3


@pytest.fixture
def half_done(launch: Callable[..., Job], store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """Leave a run of other code half done, and return how to go on with it."""
    monkeypatch.delenv(OTHER_CODE, raising=False)
    with pytest.raises(RuntimeError):
        train_to_end(store, dataclasses.replace(launch("ValueError 5"), code="x" * 32), "k", Silent())
    return lambda: dataclasses.replace(launch("run 0"), code="y" * 32)


def test_work_of_other_code_is_not_gone_on_with(half_done: Callable[..., Job], store: Store) -> None:
    before = stored(store)
    with pytest.raises(ValueError, match="was made by code") as caught:
        train_to_end(store, half_done(), "k", Silent())
    said = str(caught.value).splitlines()[0]
    assert said.startswith("step 4 of 8 (checkpoint of ")
    assert f"was made by code {'x' * 32}, this code is {'y' * 32}, what differs is not known" in said
    assert "--reuse, in make REUSE=1; to begin from the start, --afresh, in make AFRESH=1" in said
    assert stored(store) == before


def test_work_of_other_code_is_gone_on_with_knowingly_and_says_so(
    half_done: Callable[..., Job], store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(OTHER_CODE, "reuse")
    job = half_done()
    train_to_end(store, job, "k", Silent())
    made = collect(job)
    assert (made.facts["weight"], made.made_by) == (WEIGHT, ("x" * 32, "y" * 32))
    assert f"made by code {'x' * 32}, this code is {'y' * 32}" in capsys.readouterr().out
    assert [attempt["step"] for attempt in made.facts["attempts"]] == [0, 4]


def test_work_of_other_code_is_put_aside_knowingly(
    half_done: Callable[..., Job], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OTHER_CODE, "afresh")
    job = half_done()
    train_to_end(store, job, "k", Silent())
    made = collect(job)
    assert (made.facts["weight"], made.made_by) == (WEIGHT, ("y" * 32,))
    assert [attempt["step"] for attempt in made.facts["attempts"]] == [0]
    left = [key for key in store.keys(f"checkpoints/k/{'x' * 16}.1/") if key.endswith(".json")]
    assert [Path(key).name for key in left] == ["step-00000002.json", "step-00000004.json"]  # for the other code


def test_a_run_that_does_not_reach_another_checkpoint_ends(
    launch: Callable[..., Job], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job = launch("kill 3")
    with pytest.raises(RuntimeError) as caught:
        train_to_end(store, job, "k", Silent())
    assert "it was started 3 times more without reaching another checkpoint" in str(caught.value)
    place = f"what there is of the run stays in {job.folder} and at checkpoints/k/.1/ of bucket '{store.bucket}'"
    assert str(caught.value).endswith(place)
    assert capsys.readouterr().out.count("is started again") == 3
    assert "step-00000002.json" in stored(store)


def lost(store: Store, run_tag: str, step: int) -> None:
    """Begin as a stage does, and end without a word, as with a pod that is deleted or a node that is gone."""
    abandoned = counted(store, run_tag, step)
    abandoned.__enter__()
    LOST.append(abandoned)


LOST: list[object] = []  # else Python would end them in order


def test_training_lives_through_any_number_of_lost_pods_that_leave_another_checkpoint(store: Store) -> None:
    for step in range(0, 300, 10):
        for _ in range(3):  # two losses without another checkpoint are borne, again and again
            lost(store, "run-lost-1", step)


def test_three_losses_without_another_checkpoint_end_training_with_a_word(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        lost(store, "run-lost-2", 120)
    assert "train: start 3 after step 120, 3 at most without another checkpoint" in capsys.readouterr().out
    told = "lost or failed 3 times after step 120 without another checkpoint in between: --run-tag run-lost-2, in "
    for _ in range(2):  # whatever the site's Argo does with a failure
        with pytest.raises(RuntimeError, match=told):
            lost(store, "run-lost-2", 120)
    lost(store, "run-lost-3", 120)  # another run


def test_a_start_that_was_ended_in_order_does_not_count(store: Store) -> None:
    for _ in range(6):
        with suppress(StoppedError), counted(store, "run-stopped", 0):
            raise StoppedError("by SIGTERM")


def test_in_the_pod_of_a_job_which_is_started_again_after_it_a_stop_counts(store: Store) -> None:
    for step in (0, 0, 0, 8, 16):  # whoever kept a checkpoint got on
        with suppress(StoppedError), counted(store, "run-preempted", step, in_job=True):
            raise StoppedError("by SIGTERM")
    for _ in range(2):
        with suppress(StoppedError), counted(store, "run-preempted", 16, in_job=True):
            raise StoppedError("by SIGTERM")
    with pytest.raises(RuntimeError, match="lost or failed 3 times after step 16 without another checkpoint"):
        lost(store, "run-preempted", 16)


def test_whoever_sees_a_pod_killed_for_memory_keeps_its_run_from_beginning_again_with_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "memory_bytes", lambda machine: 2 * 2**30)
    forbid_memory(store, "run-watched", "nobody has counted a start")
    lost(store, "run-watched", 8)
    forbid_memory(store, "run-watched", "OOMKilled: it needs more memory")
    with pytest.raises(RuntimeError, match=r"^OOMKilled: it needs more memory\nthis run does not start it again"):
        lost(store, "run-watched", 8)
    monkeypatch.setattr(Machine, "memory_bytes", lambda machine: 4 * 2**30)
    lost(store, "run-watched", 8)


def test_what_lacked_memory_is_not_started_again_with_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "memory_bytes", lambda machine: 2 * 2**30)
    with pytest.raises(ShortOfMemoryError), counted(store, "run-memory", 0):
        raise ShortOfMemoryError("out of memory: the limit of 2,048 MiB was reached")
    with pytest.raises(RuntimeError, match=r"^out of memory: the limit of 2,048 MiB was reached\nthis run does not"):
        lost(store, "run-memory", 0)
    monkeypatch.setattr(Machine, "memory_bytes", lambda machine: 4 * 2**30)
    lost(store, "run-memory", 0)


@pytest.mark.parametrize(("what", "processes", "starts"), [("ValueError", 2, 1), ("RuntimeError", 1, 1),
                                                           ("RuntimeError", 2, 4)])  # fmt: skip
def test_what_a_worker_itself_ends_with_is_final_but_a_lost_connection_is_not(
    what: str, processes: int, starts: int, launch: Callable[..., Job], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job = launch(f"{what} 3", processes=processes)
    with pytest.raises(RuntimeError, match=f"^training failed with code 1: {what} in process 0: for a test\n"):
        train_to_end(store, job, "k", Silent())
    assert (job.folder / "log.txt").read_text().count("--- launcher.log") == starts


def test_a_process_that_hangs_is_named_and_not_waited_for(
    launch: Callable[..., Job], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job = launch("hang 5", "run 0", train=dataclasses.replace(TRAIN, step_timeout_minutes=1.0))
    train_to_end(store, job, "k", Silent())
    assert collect(job).facts["weight"] == WEIGHT
    said = (
        r"warning: training hangs: process 0 of 1 has given no sign for (\d+) s after step 5: it is started again, 1 "
    )
    found = re.search(said, capsys.readouterr().out)
    assert found
    assert int(found[1]) >= SILENT_S


def test_the_ones_with_the_fewest_steps_hold_up_the_others(tmp_path: Path) -> None:
    now = time.time()
    for rank, (step, silent_s) in enumerate([(12, 70.0), (10, 80.0), (12, 71.0), (10, 90.0)]):
        (tmp_path / f"pulse.{rank}").write_text(f"{step}\n")
        os.utime(tmp_path / f"pulse.{rank}", (now, now - silent_s))
    assert workers.find_hang(tmp_path, range(4), 100.0, 1e6) == ""
    assert workers.find_hang(tmp_path, range(4), 75.0, 1.0) == (
        "process 1, 3 of 4 has given no sign for 90 s after step 10"
    )
    assert workers.find_hang(tmp_path, range(5), 100.0, 1799.0) == ""  # the last one compiles
    assert workers.find_hang(tmp_path, range(5), 100.0, 1801.0) == (
        "process 4 of 5 has not begun its first step after 1801 s"
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_keeps_a_checkpoint_and_goes_on_there(
    how: signal.Signals, launch: Callable[..., Job], store: Store
) -> None:
    job, sender = launch("wait 3"), Silent()
    with (
        signalled(how, lambda: (job.folder / "waits").exists() and len(sender.points) > 0),
        pytest.raises(StoppedError, match=f"training was stopped by {how.name}: it goes on after step 4 when"),
    ):
        train_to_end(store, job, "k", sender)
    (newest, *_) = records(job.folder / "checkpoints")
    assert newest.name in stored(store)
    assert not (job.folder / "outcome.json").exists()
    shutil.rmtree(job.folder)  # another machine
    again = launch("run 0")
    train_to_end(store, again, "k", Silent())
    assert collect(again).facts["weight"] == WEIGHT


def test_before_the_first_step_a_stopped_run_ends_at_once(
    launch: Callable[..., Job], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, watched = launch("run 0"), threading.Event()
    code = "import threading; threading.Event().wait()"
    monkeypatch.setattr(workers, "launch", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(mirror.Mirror, "check", lambda _: watched.set())
    started = time.monotonic()
    with (
        signalled(signal.SIGTERM, watched.is_set),
        pytest.raises(StoppedError, match="stopped by SIGTERM: it begins from the start when it is run again"),
    ):
        train_to_end(store, job, "k", Silent())
    assert time.monotonic() - started < workers.GRACE_S / 2


def test_a_store_that_is_away_for_good_stops_training_with_a_checkpoint_that_is_named(
    launch: Callable[..., Job], store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = launch("wait 3")
    monkeypatch.setattr(mirror, "AWAY_S", 0.3)
    monkeypatch.setattr(workers, "GRACE_S", 2.0)

    def away(*_: object) -> None:
        raise RuntimeError("cannot write s3://bucket/x")

    monkeypatch.setattr(store, "upload", away)
    with pytest.raises(RuntimeError) as caught:
        train_to_end(store, job, "k", Silent())
    (newest, *_) = records(job.folder / "checkpoints")
    assert str(caught.value) == (
        "the store has been away for 0 minutes: cannot write s3://bucket/x\ntraining has stopped, its last checkpoint "
        f"is on this machine alone, {newest}: run it again here when the store answers"
    )
    assert capsys.readouterr().out.count("until the store takes them: cannot write s3://bucket/x") == 1
    assert not (job.folder / "outcome.json").exists()


def test_nothing_of_a_run_that_has_failed_for_a_reason_of_its_own_is_lost(
    launch: Callable[..., Job], store: Store
) -> None:
    job = launch("ValueError 7", "run 0")
    (job.folder / "nonfinite").mkdir()
    (job.folder / "nonfinite" / "step-00000001.rank-0.npz").write_bytes(b"batch")
    with pytest.raises(RuntimeError):
        train_to_end(store, job, "k", Silent())
    assert {"step-00000006.json", "nonfinite/step-00000001.rank-0.npz"} <= set(stored(store))
    train_to_end(store, job, "k", Silent())
    made = collect(job)
    assert made.facts["weight"] == WEIGHT
    assert made.files["nonfinite/step-00000001.rank-0.npz"].read_bytes() == b"batch"


@contextmanager
def signalled(how: signal.Signals, holds: Callable[[], bool]) -> Iterator[None]:
    """Send this process a signal as soon as something holds."""

    def send() -> None:
        wait_until(holds)
        os.kill(os.getpid(), how)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


def test_a_pod_that_was_killed_whole_for_memory_is_not_followed_by_one_with_the_same(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "namespace").write_text("wordmill\n")
    monkeypatch.setattr(pods, "NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(Machine, "memory_bytes", lambda machine: 2 * 2**30)
    cluster = Cluster()
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    status = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    cluster.add_pod("train-0", "Failed", job="none", containerStatuses=[status | {"state": {"terminated": ended}}])
    with serving(cluster, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        for name in ("train-gone", "train-0"):
            monkeypatch.setenv("KFP_POD_NAME", name)
            lost(store, "run-killed", 40)
        monkeypatch.setenv("KFP_POD_NAME", "train-1")
        with pytest.raises(RuntimeError, match=r"^OOMKilled: it needs more memory than its limit.*: give the profile "):
            lost(store, "run-killed", 40)
        monkeypatch.setattr(Machine, "memory_bytes", lambda machine: 4 * 2**30)
        lost(store, "run-killed", 40)
