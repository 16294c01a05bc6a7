"""The embedded services of a local run: an S3 server and an MLflow server on the loopback address."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from wordmill.store.files import atomic_file, write_atomically
from wordmill.store.storage import Store, endpoint_url

BUCKET = "wordmill"
HOST = "127.0.0.1"
STATE = Path(os.environ.get("WORDMILL_STATE") or Path(__file__).resolve().parents[2] / ".state").absolute()
START_TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server process that was started here; `born`, its start time, tells it from a later owner of its pid."""

    pid: int
    born: float
    port: int

    def process(self) -> psutil.Process | None:
        """Return the process if it still runs, else None."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.born) < 1.0 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def settings() -> dict[str, str]:
    """Return the environment that leads to S3 and MLflow: a site's own where given, else the embedded ones, started."""
    environment = {"WORDMILL_CACHE": os.environ.get("WORDMILL_CACHE") or str(STATE / "cache")}
    if "WORDMILL_BUCKET" not in os.environ:
        if endpoint := endpoint_url():
            raise ValueError(
                f"AWS_ENDPOINT_URL is {endpoint}, but WORDMILL_BUCKET, the bucket to use there, is not set"
            )
        environment |= _embedded_s3()
    os.environ.update(environment)
    Store.from_environment().make_bucket()
    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ["MLFLOW_TRACKING_URI"] = _embedded_mlflow()
    return environment | {"MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}


def down() -> list[str]:
    """Stop the embedded services that run and return their names."""
    stopped = []
    for name in ("mlflow", "s3"):
        service = _read(name)
        process = service.process() if service else None
        if process:
            family = [process, *process.children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.terminate()
            _, alive = psutil.wait_procs(family, timeout=10)
            for member in alive:
                member.kill()
            stopped.append(name)
        _record(name).unlink(missing_ok=True)
    return stopped


def _embedded_s3() -> dict[str, str]:
    key, secret = _credentials()
    environment = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"}
    folder = STATE / "s3"
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--addr", f"{HOST}:PORT", str(folder)]
    # The keys go through the environment: a command line can be read by every user of the machine.
    port = _found_or_started("s3", command, {"RCLONE_AUTH_KEY": f'"{key},{secret}"'}, 9000)
    return environment | {"AWS_ENDPOINT_URL": f"http://{HOST}:{port}", "WORDMILL_BUCKET": BUCKET}


def _embedded_mlflow() -> str:
    database = "sqlite:///mlflow.db"  # in STATE, where servers are started: an address takes no `?`, `#` or `%`
    bucket = os.environ["WORDMILL_BUCKET"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", "PORT", "--workers", "1",
               "--backend-store-uri", database, "--artifacts-destination", f"s3://{bucket}/mlflow"]  # fmt: skip
    variables = {
        "MLFLOW_S3_ENDPOINT_URL": endpoint_url(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves eight processes that nothing here uses
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return f"http://{HOST}:{_found_or_started('mlflow', command, variables, 5000)}"


def _found_or_started(name: str, command: list[str], variables: dict[str, str], first_port: int) -> int:
    """Return the port of the running service, or start it on the first free port from `first_port` on."""
    service = _read(name)
    if service and service.process():
        return service.port
    port = next(_free_ports(first_port))
    print(f"starting {name} on {HOST}:{port}", flush=True)
    log = STATE / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [f"{part.removesuffix('PORT')}{port}" if part.endswith("PORT") else part for part in command],
            env=os.environ | {key: value for key, value in variables.items() if value},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=STATE,
        )
    service = Service(pid=process.pid, born=psutil.Process(process.pid).create_time(), port=port)
    write_atomically(_record(name), json.dumps(asdict(service)))
    _wait_until_it_answers(name, process, port, log)
    return port


def _wait_until_it_answers(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the embedded {name} server ended with code {process.returncode}: see {log}")
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, if only to refuse
        except OSError:
            time.sleep(0.2)
    process.terminate()
    raise RuntimeError(
        f"the embedded {name} server does not answer on port {port} after {START_TIMEOUT_S} s: see {log}"
    )


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


def _record(name: str) -> Path:
    return STATE / f"{name}.json"


def _read(name: str) -> Service | None:
    path = _record(name)
    return Service(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
