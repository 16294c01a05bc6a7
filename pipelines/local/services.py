"""The embedded services of a local run: an S3 server and an MLflow server on the loopback address."""

import contextlib
import errno
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipelines.places import cache_folder, state_folder
from wordmill.store.files import atomic_file, locked, write_atomically
from wordmill.store.storage import Store, endpoint_url

BUCKET = "wordmill"
MARK = "WORDMILL_SERVICE"  # in the environment of a server and of what it starts: the path of its record
HOST = "127.0.0.1"
STATE = state_folder()
DATABASE = "mlflow.db"
UNSERVED = f"{DATABASE}.unserved"  # stands beside a database that no server has answered from yet
START_TIMEOUT_S = 120
END_TIMEOUT_S = 10


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server process that was started here; its start, `born`, or its mark tells it from a later owner of its pid.

    Start times follow a clock that may be set; servers of earlier versions have no mark.
    """

    pid: int
    born: float
    port: int

    @property
    def address(self) -> str:
        """Return where it answers."""
        return f"http://{HOST}:{self.port}"

    def process(self) -> psutil.Process | None:
        """Return the process if it still runs, else None."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            ours = abs(process.create_time() - self.born) < 1.0 or Path(_mark_of(process)).parent == STATE
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def settings() -> dict[str, str]:
    """Return the environment that leads to S3 and MLflow: a site's own where given, else the embedded ones, started."""
    try:
        return _settings()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RuntimeError(f"no space left on {STATE}, for the embedded servers: make room and run again") from None


def _settings() -> dict[str, str]:
    environment = {"WORDMILL_CACHE": str(cache_folder(STATE))}
    started = {}
    lock, ports = STATE / "services.lock", contextlib.ExitStack()
    with locked(lock, waiting=f"another process starts the servers of {STATE}: waiting"), ports:
        if "WORDMILL_BUCKET" not in os.environ:
            if endpoint := endpoint_url():
                raise ValueError(
                    f"AWS_ENDPOINT_URL is {endpoint}, but WORDMILL_BUCKET, the bucket to use there, is not set"
                )
            keys, started["s3"] = _embedded_s3(ports)
            environment |= keys | {"AWS_ENDPOINT_URL": started["s3"].address, "WORDMILL_BUCKET": BUCKET}
        os.environ.update(environment)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            started["mlflow"] = _embedded_mlflow(ports)  # beside S3, which it needs for artifacts alone
            os.environ["MLFLOW_TRACKING_URI"] = started["mlflow"].address
        for name, service in started.items():
            _wait_until_it_answers(name, service)
        if "mlflow" in started:
            (STATE / UNSERVED).unlink(missing_ok=True)
    Store.from_environment().make_bucket()
    return environment | {"MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}


def has_registry() -> bool:
    """Tell whether there is an MLflow to ask: a site's, or the embedded one, which has been started before."""
    return "MLFLOW_TRACKING_URI" in os.environ or (STATE / DATABASE).exists()


def open_store() -> Store:
    """Open the store that the environment names, else the embedded one, started with all that belongs to it."""
    if "WORDMILL_BUCKET" not in os.environ:
        settings()
    return Store.from_environment()


def down() -> list[str]:
    """Stop the embedded services that run and return their names."""
    stopped: list[str] = []
    if not STATE.exists():
        return stopped
    with locked(STATE / "services.lock"):
        for name in ("mlflow", "s3"):
            service = _read(name)
            process = service.process() if service else None
            if _end([*_family(process), *_marked(name)]):
                stopped.append(name)
            _record(name).unlink(missing_ok=True)
    return stopped


def _family(process: psutil.Process | None) -> list[psutil.Process]:
    """Return a process and all that it has started, as far as they run."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)] if process else []
    return []


def _marked(name: str) -> list[psutil.Process]:
    """Return the processes of a server of this state folder, known or not.

    Whoever starts one may be killed before its record is written; a server may be killed, what it has started not.
    """
    return [process for process in psutil.process_iter() if _mark_of(process) == str(_record(name))]


def _mark_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error, OSError):  # others' processes keep their environment to themselves
        return process.environ().get(MARK, "")
    return ""


def _end(processes: Sequence[psutil.Process]) -> bool:
    """End processes, by force where they take long; return whether there were any."""
    running = {process.pid: process for process in processes if process.is_running()}
    for process in running.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(running.values(), timeout=END_TIMEOUT_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=END_TIMEOUT_S)
    return bool(running)


def _embedded_s3(ports: contextlib.ExitStack) -> tuple[dict[str, str], Service]:
    """Return the settings that let a client in, and the server."""
    key, secret = _credentials()
    folder = STATE / "s3"
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--addr", f"{HOST}:PORT", str(folder)]
    # The keys go through the environment: a command line can be read by every user of the machine.
    service = _found_or_started("s3", command, {"RCLONE_AUTH_KEY": f'"{key},{secret}"'}, 9000, ports)
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"}, service


def _embedded_mlflow(ports: contextlib.ExitStack) -> Service:
    if not _running("mlflow"):
        _make_room_for_tables()
    database = f"sqlite:///{DATABASE}"  # in STATE, where servers are started: an address takes no `?`, `#` or `%`
    bucket = os.environ["WORDMILL_BUCKET"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", "PORT", "--workers", "1",
               "--backend-store-uri", database, "--artifacts-destination", f"s3://{bucket}/mlflow"]  # fmt: skip
    # Job execution would be eight processes that nothing here uses.
    variables = {"MLFLOW_S3_ENDPOINT_URL": endpoint_url(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                 "MLFLOW_DISABLE_TELEMETRY": "true"}  # fmt: skip
    return _found_or_started("mlflow", command, variables, 5000, ports)


def _make_room_for_tables() -> None:
    """Remove the database of a first server that never answered: MLflow does not go on with tables half made."""
    _end(_marked("mlflow"))
    unserved = STATE / UNSERVED
    if unserved.exists():
        for path in STATE.glob(f"{DATABASE}*"):
            path.unlink()
    if not (STATE / DATABASE).exists():
        unserved.touch()


def _running(name: str) -> Service | None:
    service = _read(name)
    return service if service and service.process() else None


def _found_or_started(
    name: str, command: list[str], variables: dict[str, str], first_port: int, ports: contextlib.ExitStack
) -> Service:
    """Return the running service, or start it on the first free port from `first_port` on.

    `ports` keeps others from that port until the server has it.
    """
    if service := _running(name):
        return service
    _end(_marked(name))
    port = next(_free_ports(first_port))
    ports.enter_context(_held(port))
    print(f"starting {name} on {HOST}:{port}", flush=True)
    log = _log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [f"{part.removesuffix('PORT')}{port}" if part.endswith("PORT") else part for part in command],
            env=os.environ | {key: value for key, value in variables.items() if value} | {MARK: str(_record(name))},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=STATE,
        )
    service = Service(pid=process.pid, born=psutil.Process(process.pid).create_time(), port=port)
    try:
        write_atomically(_record(name), json.dumps(asdict(service)))
    except OSError:
        _end(_marked(name))
        raise
    return service


def _wait_until_it_answers(name: str, service: Service) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if not service.process():
            raise RuntimeError(f"the embedded {name} server has ended: see {_log(name)}")
        if _listens(service) and _answers(service):
            return
        time.sleep(0.1)
    _end(_family(service.process()))
    raise RuntimeError(f"the embedded {name} server does not answer at {service.address} after {START_TIMEOUT_S} s: "
                       f"see {_log(name)}")  # fmt: skip


def _listens(service: Service) -> bool:
    """Tell whether it is this server that has its port, and no other that was quicker."""
    for member in _family(service.process()):
        with contextlib.suppress(psutil.Error):
            for connection in member.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == service.port:
                    return True
    return False


def _answers(service: Service) -> bool:
    try:
        urllib.request.urlopen(f"http://{HOST}:{service.port}/health", timeout=2).close()
    except urllib.error.HTTPError:
        return True  # it answers, if only to refuse
    except OSError:
        return False
    return True


def _credentials() -> tuple[str, str]:
    """Return the generated S3 keys of this state folder, readable by its owner alone."""
    path = STATE / "s3.keys"
    if not path.exists():
        with atomic_file(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(f"{secrets.token_hex(10)} {secrets.token_hex(20)}", encoding="utf-8")
    key, secret = path.read_text(encoding="utf-8").split()
    return key, secret


def _free_ports(first: int) -> Iterator[int]:
    for port in range(first, first + 1000):
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind((HOST, port))
            yield port


@contextlib.contextmanager
def _held(port: int) -> Iterator[None]:
    """Keep whoever looks for a free port from this one; a server that is told its number may have it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, port))
        yield


def _log(name: str) -> Path:
    return STATE / "logs" / f"{name}.log"


def _record(name: str) -> Path:
    return STATE / f"{name}.json"


def _read(name: str) -> Service | None:
    path = _record(name)
    return Service(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
