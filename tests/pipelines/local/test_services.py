import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from pipelines.local import services
from tests.ports import held_port
from tests.waiting import LIMIT_S

OUTSIDE = (
    "WORDMILL_BUCKET",
    "WORDMILL_CACHE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
)


def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Ask as a new process does that nothing is given from outside but perhaps MLflow's address."""
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    return services.settings()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own state folder and an environment that is put back; what was started in it is stopped."""
    for name in OUTSIDE:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(services, "STATE", tmp_path / "a PORTABLE Wörd (2)+~#%20?" / "state")
    with held_port() as port:  # others may be looking for one from the same number on
        monkeypatch.setattr(services, "_free_ports", lambda first: iter([port]))
        yield services.STATE
        services.down()


@pytest.fixture
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


@pytest.mark.usefixtures("without_mlflow")
def test_s3_starts_once_is_found_again_and_stops(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings(monkeypatch)
    process = psutil.Process(services._read("s3").pid)  # type: ignore[union-attr]
    assert settings(monkeypatch)["AWS_ENDPOINT_URL"] == first["AWS_ENDPOINT_URL"]
    assert services._read("s3").pid == process.pid  # type: ignore[union-attr]
    assert services.down() == ["s3"]
    assert not process.is_running()
    assert services.down() == []


def test_a_taken_port_leads_to_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind((services.HOST, 0))
        port = taken.getsockname()[1]
        assert next(services._free_ports(port)) > port


@pytest.mark.usefixtures("without_mlflow")
def test_the_server_lets_only_the_generated_keys_in(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = services.settings()
    assert stat.S_IMODE((state / "s3.keys").stat().st_mode) == 0o600
    assert given["AWS_SECRET_ACCESS_KEY"] not in " ".join(psutil.Process(services._read("s3").pid).cmdline())  # type: ignore[union-attr]
    good = boto3.Session().client("s3", endpoint_url=given["AWS_ENDPOINT_URL"])
    assert "Contents" not in good.list_objects_v2(Bucket=given["WORDMILL_BUCKET"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    bad = boto3.Session().client("s3", endpoint_url=given["AWS_ENDPOINT_URL"])
    with pytest.raises(ClientError):
        bad.list_objects_v2(Bucket=given["WORDMILL_BUCKET"])


@pytest.mark.usefixtures("without_mlflow")
def test_a_dead_servers_record_is_not_believed(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch)
    process = psutil.Process(services._read("s3").pid)  # type: ignore[union-attr]
    process.kill()
    process.wait(LIMIT_S)
    settings(monkeypatch)
    assert services._read("s3").process() is not None  # type: ignore[union-attr]


@pytest.mark.usefixtures("state", "without_mlflow")
def test_a_sites_own_s3_needs_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example:9000")
    with pytest.raises(
        ValueError, match=r"AWS_ENDPOINT_URL is http://s3.example:9000, but WORDMILL_BUCKET.*is not set"
    ):
        services.settings()


def test_a_server_that_cannot_start_says_where_its_log_is(state: Path) -> None:
    service = services._found_or_started("s3", ["/bin/sh", "-c", "exit 3"], {}, 9000, ExitStack())
    with pytest.raises(RuntimeError, match=r"the embedded s3 server has ended: see .*s3\.log"):
        services._wait_until_it_answers("s3", service)


def test_the_database_of_a_first_mlflow_that_never_answered_is_made_anew(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setenv("WORDMILL_BUCKET", "wordmill")
    monkeypatch.setattr(services, "_found_or_started", lambda name, *_: started.append(name))
    state.mkdir(parents=True)
    for attempt in range(2):  # neither of them ever answers
        with ExitStack() as ports:
            services._embedded_mlflow(ports)
        assert [path.name for path in state.iterdir()] == [services.UNSERVED], attempt
        (state / services.DATABASE).write_text("half of the tables", encoding="utf-8")
        (state / f"{services.DATABASE}-journal").touch()
    (state / services.UNSERVED).unlink()  # one has answered
    with ExitStack() as ports:
        services._embedded_mlflow(ports)
    assert (state / services.DATABASE).read_text(encoding="utf-8") == "half of the tables"
    assert (started, (state / services.UNSERVED).exists()) == (["mlflow"] * 3, False)


def test_given_services_are_used_and_nothing_is_started(state: Path, store: object) -> None:
    # The fixture `store` has put the way to a real S3 server into the environment.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        services.settings()
    assert not list(state.glob("*.json"))
