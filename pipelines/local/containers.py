"""A container for each stage of a local run: kfp's DockerRunner with a way to run containers that tells the truth."""

import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import Mount
from kfp import local
from kfp.dsl.graph_component import GraphComponent
from kfp.local import docker_task_handler

from pipelines.cluster.tasks import USER
from pipelines.images.building import key_of
from pipelines.images.references import KEY
from pipelines.output import to_type
from wordmill.store.cache import VARIABLE, limit_bytes

LABEL = "wordmill.state"  # whose containers they are: the folder of state of the run that started them
CANNOT_START = 125  # the code of `docker run` for that
# The way to S3 and MLflow.
PASSED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
          "AWS_DEFAULT_REGION", "WORDMILL_BUCKET", "MLFLOW_TRACKING_URI")  # fmt: skip


def runner(pipeline: GraphComponent, state: Path, tasks: Path) -> local.DockerRunner:
    """Return kfp's runner for containers on the host's network, which sees the embedded services.

    They get the folder of the run's tasks, which kfp mounts, and the cache, and have the rights of whoever runs this;
    root's are those that they have on a cluster. What a killed run has left running is ended. RuntimeError where
    Docker or an image is missing.
    """
    _prepare(pipeline, state)
    docker_task_handler.run_docker_container = run_container
    cache = Path(os.environ["WORDMILL_CACHE"]).resolve()
    for folder in (tasks, cache):
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            _give(folder)
    return local.DockerRunner(
        environment={name: os.environ[name] for name in PASSED if name in os.environ}
        | {"WORDMILL_CACHE": str(cache), VARIABLE: str(limit_bytes(cache))},  # there it looks like a volume of its own
        mounts=[Mount(str(cache), str(cache), type="bind")],
        network_mode="host",
        user=f"{os.getuid() or USER}:{os.getgid() or USER}",
        group_add=["0"],  # whose the images' home folder is
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        shm_size="1g",  # the default breaks collective communication
        init=True,  # ends the processes that a killed stage has left
        labels={LABEL: str(state)},
    )


def run_container(
    client: docker.DockerClient, image: str, command: list[str], volumes: dict[str, Any], **settings: Any
) -> int:
    """Run a container to its end, print what it prints and return its exit code; nothing of it remains.

    It stands in for kfp's own function (2.17), whose containers remove themselves: where that happens before their
    code is asked for, kfp takes the stage for a success.
    """
    # A volume is written down as host:container:mode, which a path with a colon does not fit into.
    odd = [Mount(how["bind"], host, type="bind") for host, how in volumes.items() if ":" in host]
    plain = {host: how for host, how in volumes.items() if ":" not in host}
    mounts = [*settings.pop("mounts", []), *odd]
    container = client.containers.create(image, command, volumes=plain, mounts=mounts, **settings)
    try:
        output = container.attach(stream=True, logs=True)  # before it starts, so that nothing is missed
        try:
            container.start()
        except APIError as error:
            print(f"error: {image} cannot start: {error.explanation}", flush=True)
            return CANNOT_START
        for line in _lines(output):
            print(line, flush=True)
        code = int(container.wait()["StatusCode"])
        container.reload()
        if container.attrs["State"]["OOMKilled"]:
            print("error: it was killed for want of memory", flush=True)
        return code
    finally:
        container.remove(force=True)


def _lines(output: Iterator[bytes]) -> Iterator[str]:
    """Yield whole lines: kfp's `print` indents whatever it is given."""
    rest = ""
    for text in codecs.iterdecode(output, "utf-8", "replace"):
        *lines, rest = (rest + text).split("\n")
        yield from lines
    if rest:
        yield rest


def _prepare(pipeline: GraphComponent, state: Path) -> None:
    """Look for all images, and remove the containers of a run that was killed, which went on without it."""
    executors = pipeline.pipeline_spec.deployment_spec["executors"].values()
    try:
        client = docker.from_env()
        for container in client.containers.list(all=True, filters={"label": f"{LABEL}={state}"}):
            container.remove(force=True)
        for image in sorted({executor["container"]["image"] for executor in executors}):
            name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
            if client.images.get(image).labels.get(KEY) != key_of(name):
                raise RuntimeError(f"{image} was built of other code than this: {to_type('images')}, and "
                                   "WORDMILL_TAG=dev to run what is built here instead of what was pushed")  # fmt: skip
    except ImageNotFound as error:
        raise RuntimeError(f"{error.explanation}: {to_type('images')}, or pull it") from None
    except DockerException as error:
        raise RuntimeError(f"Docker does not answer: {error}") from None


def _give(folder: Path) -> None:
    """Make a folder and all that is in it the containers' own."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)
