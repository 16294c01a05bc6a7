"""MLflow as a site runs it, with PostgreSQL behind it and its files in S3: two runs log at once, nothing is lost."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psycopg2
import pytest

from tests import mlflow_server
from tests.components.train.trial import Trial
from tests.ports import held_port
from tests.waiting import LIMIT_S
from wordmill.store import tracking
from wordmill.store.storage import Store

pytestmark = pytest.mark.slow

START = 1_790_000_000.25  # s, unix time of the first point
POINTS = 2500
RUNS = (1, 2)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of its own, by its address."""
    found = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
    if found is None:
        pytest.skip("there is no initdb: apt-get install postgresql")
    with held_port() as port, server(Path(found).resolve().parent, port) as uri:
        yield uri


@contextmanager
def server(programs: Path, port: int) -> Iterator[str]:
    """Serve an empty database at a port of the loopback address."""
    user = "nobody" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(prefix="wordmill-postgres-") as folder:
        if user:
            shutil.chown(folder, user)
        made = [programs / "initdb", "-D", "data", "--username=wordmill", "--auth=trust", "--no-sync"]
        subprocess.run(made, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL)
        command = [programs / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder]
        process = subprocess.Popen(command, cwd=folder, user=user, stderr=subprocess.DEVNULL)
        try:
            uri = f"postgresql://wordmill@127.0.0.1:{port}/postgres"
            wait_until_it_answers(uri, process)
            yield uri
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: MLflow is still connected
            process.wait()


def wait_until_it_answers(uri: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return psycopg2.connect(uri).close()
        except psycopg2.OperationalError:
            time.sleep(0.1)
    pytest.fail("PostgreSQL does not answer")


@pytest.fixture
def mlflow(postgres: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    database = postgres.replace("://", "+psycopg2://")  # the driver that is there, not SQLAlchemy's choice
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.start(store.endpoint, database))
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def loss(number: int) -> list[tuple[str, float, int, float]]:
    """Return a curve whose values no short decimal number is: 1/3, 1/4 ..."""
    return [("train/loss", 1 / (step + number), step, START + step) for step in range(2, POINTS + 2)]


def files(number: int) -> dict[str, bytes]:
    return {"page.html": f"<p>{number}".encode(), "weights.bin": bytes(range(256)) * 20_000 + bytes([number])}


def log(number: int, recipe: str, folder: Path, together: Barrier) -> None:
    """Do what a run's stages do with MLflow, in a process of its own."""
    store, points = Store.from_environment(), loss(number)
    for name, content in files(number).items():
        (folder / name).write_bytes(content)
    together.wait(timeout=LIMIT_S)
    run = tracking.open_run(store, f"{recipe}-{number}", recipe)
    run.log_params({f"p{i}": f"{number}.{i}" for i in range(150)})
    for first in range(0, POINTS, 250):
        run.log_metrics(points[first : first + 250])
    run.set_tags({"wordmill.recipe_digest": f"digest {number}"})
    run.log_artifact(folder, "files")
    version = tracking.register(
        f"wordmill-{recipe}", model=f"train/{number}", source=f"s3://{store.bucket}/{number}", run_id=run.run_id,
        description=f"the model of run {number}",
    )  # fmt: skip
    tracking.mark(f"wordmill-{recipe}", version, f"outcome {number}")
    run.finish(True)


def log_at_once(recipe: str, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together, processes = context.Barrier(len(RUNS)), []
    for number in RUNS:
        (folder / str(number)).mkdir()
        processes.append(context.Process(target=log, args=(number, recipe, folder / str(number), together)))
        processes[-1].start()
    for process in processes:
        process.join(timeout=LIMIT_S)
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.usefixtures("mlflow")
def test_two_runs_that_log_at_once_are_read_back_exactly(store: Store, postgres: str, tmp_path: Path) -> None:
    recipe = f"r{uuid.uuid4().hex[:8]}"
    log_at_once(recipe, tmp_path)
    client, experiments = tracking.connect(), set()
    for number in RUNS:
        run = tracking.open_run(store, f"{recipe}-{number}", recipe)
        stored = client.get_run(run.run_id)
        experiments.add(stored.info.experiment_id)
        assert stored.info.status == "FINISHED"
        assert stored.data.params == {f"p{i}": f"{number}.{i}" for i in range(150)}
        assert stored.data.tags["wordmill.recipe_digest"] == f"digest {number}"
        history = client.get_metric_history(run.run_id, "train/loss")
        points = [(m.key, m.value, m.step, m.timestamp / 1000) for m in history]
        assert sorted(points, key=lambda point: point[2]) == loss(number)
        sample = tracking.sampled_histories([run.run_id], "train/loss", 100)[run.run_id]
        ends = [loss(number)[0][1:], loss(number)[-1][1:]]
        assert [(value, step, at) for step, value, at in (sample[0], sample[-1])] == ends
        copy = Path(client.download_artifacts(run.run_id, "files", str(tmp_path)))
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == files(number)
        key = f"artifacts/{stored.info.experiment_id}/{run.run_id}/artifacts/files/page.html"
        assert Store(mlflow_server.BUCKET, tmp_path).get_bytes(key) == files(number)["page.html"]
        with psycopg2.connect(postgres) as database, database.cursor() as cursor:
            cursor.execute("SELECT count(*), sum(step) FROM metrics WHERE run_uuid = %s", [run.run_id])
            assert cursor.fetchone() == (POINTS, sum(range(2, POINTS + 2)))
    assert [client.get_experiment(found).name for found in experiments] == [f"wordmill/{recipe}"]


@pytest.mark.usefixtures("mlflow")
def test_models_registered_at_once_are_two_versions_and_the_alias_moves(store: Store, tmp_path: Path) -> None:
    recipe = f"r{uuid.uuid4().hex[:8]}"
    log_at_once(recipe, tmp_path)
    client, name = tracking.connect(), f"wordmill-{recipe}"
    found = {entry.tags["wordmill.model"]: entry for entry in client.search_model_versions(f"name = '{name}'")}
    assert sorted(found) == ["train/1", "train/2"]
    assert {str(entry.version) for entry in found.values()} == {"1", "2"}
    for number in RUNS:
        entry = found[f"train/{number}"]
        assert (entry.source, entry.description) == (f"s3://{store.bucket}/{number}", f"the model of run {number}")
        assert entry.run_id == tracking.open_run(store, f"{recipe}-{number}", recipe).run_id
        assert entry.tags["wordmill.gate"] == f"outcome {number}"
    assert client.get_model_version_by_alias(name, "candidate").version in ("1", "2")
    for version in ("1", "2", "1"):
        tracking.set_alias(name, "champion", version)
        champion = tracking.holder(name, "champion")
        assert champion is not None
        assert champion.version == version


@pytest.mark.usefixtures("mlflow")
def test_the_gate_promotes_and_refuses(store: Store, tmp_path: Path) -> None:
    trial = Trial(store, tmp_path)
    assert trial.decide(trial.candidate("one", {"a": "1110"}))["outcome"] == "promoted"
    assert trial.decide(trial.candidate("two", {"a": "0000"}))["outcome"] == "refused"
    better = trial.decide(trial.candidate("three", {"a": "1111"}))
    assert (better["outcome"], better["benchmarks"][0]["gained"], trial.champion()) == ("promoted", 1, "3")
