"""A pipeline of two small stages, as a run on this machine has them, for tests that kill the run."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.report.cluster import fate_of_run
from components.report.gather import gather_run
from components.report.summary import summarise
from wordmill.store.storage import Store


@dsl.component(base_image="python:3.12", install_kfp_package=False)
def begin(run_tag: str) -> str:
    from tests.crashed_run import put

    return put(run_tag, "begun")


@dsl.component(base_image="python:3.12", install_kfp_package=False)
def finish(run_tag: str, begun: str):  # type: ignore[no-untyped-def]
    from tests.crashed_run import close

    close(run_tag, begun)


@dsl.pipeline(name="tiny")
def tiny(run_tag: str = "") -> None:
    """Two stages, one after the other."""
    finish(run_tag=run_tag, begun=begin(run_tag=run_tag).output)


def put(run_tag: str, name: str) -> str:
    """Store a document of a run and return its key."""
    key = f"runs/{run_tag}/{name}.json"
    Store.from_environment().put_json(key, {"name": name})
    return key


def close(run_tag: str, begun: str) -> None:
    """Store the run's page and summary, as the report does."""
    store = Store.from_environment()
    summary = summarise(gather_run(store, run_tag), "tiny", run_tag, "SUCCEEDED", [], fate_of_run())
    summary |= {"mlflow": {"run_id": "", "url": ""}, "ok": store.get_json(begun) == {"name": "begun"}}
    store.put_bytes(f"runs/{run_tag}/report.html", b"<p>page</p>", "text/html")
    store.put_json(f"runs/{run_tag}/summary.json", summary)


def call(work: Callable[..., None], *arguments: Any, environment: dict[str, str]) -> int:
    """Do what pipelines.local.stages.call does in a copy of this process, which has imported all already."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        os.environ.update(environment)
        work(*arguments)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        print(error, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
