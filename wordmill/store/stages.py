"""What every stage has in common: finished work is found by digest, the rest is made, stored and recorded."""

import argparse
import dataclasses
import inspect
import json
import os
import secrets
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wordmill.store.artifacts import Manifest, digest, find_manifest, git_commit, to_document
from wordmill.store.files import locked, write_atomically
from wordmill.store.keys import Ingredients, changed_ingredients
from wordmill.store.runs import records_prefix
from wordmill.store.storage import Object, Store

# What becomes of finished and half-finished work that other code has made: "reuse" takes it, "afresh" puts aside what
# is half done; unset, finished work is not found and half-finished work is not gone on with.
OTHER_CODE = "WORDMILL_OTHER_CODE"
NOTHING = Ingredients()
NAMED = 8  # changes of the code, of all, in a message
# What Kubernetes shows as the reason of a container's end, and Argo as its task's; a pod has one, a laptop has none.
TERMINATION = Path("/dev/termination-log")
TERMINATION_BYTES = 2048  # of the 4096 that Kubernetes takes
RESUME = 75  # EX_TEMPFAIL of <sysexits.h>, the exit code of work that goes on where it was when it is started again


class StoppedError(RuntimeError):
    """Somebody stopped work that had done nothing wrong; it goes on when the stage runs again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult:
    """What the work of a stage gives back: files to store by object name, and what its manifest is to say.

    `stored` are objects of the manifest that the work itself has stored, `made_by` the digests of the code that made
    parts of it which were there.
    """

    files: dict[str, Path]
    facts: dict[str, Any]
    stored: tuple[Object, ...] = ()
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, list[tuple[int, float, float]]] = dataclasses.field(default_factory=dict)
    made_by: tuple[str, ...] = ()


def find_or_make(
    store: Store, stage: str, name: str, inputs: dict[str, Any], make: Callable[[Path], StageResult],
    ingredients: Ingredients = NOTHING,
) -> tuple[Manifest, bool]:  # fmt: skip
    """Return the manifest of finished work with these inputs and True, or make it and return it and False.

    `make` gets an empty folder for its files; `ingredients` decide on them too. The manifest is stored last, so
    unfinished work is never found.
    """
    code = ingredients.digest()
    key = _key(stage, name, inputs, (code,))
    if found := _find_own(store, stage, name, inputs, key) or _find_other(store, stage, name, inputs):
        found = dataclasses.replace(found, reused=_reused(stage, name, found.made_by, code))
        told = "".join(f", {text}" for text in found.reused.values())
        # One write, line end included: data sets are looked for in threads.
        line = f"{stage} {name}: found finished by digest {found.key[:12]}, made in {found.seconds:.1f} s{told}\n"
        print(line, end="", flush=True)
        return found, True
    started = time.monotonic()
    store.put_once(_place(code), ingredients.found)
    with work_folder(store, f"{stage}-{key}") as folder:
        made = make(folder)
        files = tuple(store.put_file(path, object_name) for object_name, path in made.files.items())
    made_by = (*(other for other in made.made_by if other != code), code)
    manifest = Manifest(
        stage=stage, name=name, key=_key(stage, name, inputs, made_by), inputs=inputs, git_commit=git_commit(),
        objects=(*made.stored, *files), facts=made.facts, metrics=made.metrics, curves=made.curves,
        seconds=round(time.monotonic() - started, 3), made_by=made_by, reused=_reused(stage, name, made_by, code),
    )  # fmt: skip
    store.put_json(f"manifests/{manifest.reference}.json", to_document(manifest))
    store.put_json(_latest(stage, name, inputs), {"manifest": manifest.reference})
    return manifest, False


def _key(stage: str, name: str, inputs: dict[str, Any], made_by: tuple[str, ...]) -> str:
    """Return the digest of all that decides on a work's bytes."""
    return digest({"stage": stage, "name": name, "code": made_by, "inputs": inputs})


def _latest(stage: str, name: str, inputs: dict[str, Any]) -> str:
    """Return the place in the store of what was made last of these inputs, by whatever code."""
    return f"made/{stage}/{digest({'name': name, 'inputs': inputs})}.json"


def _place(code: str) -> str:
    """Return the place in the store of what a digest of code is of."""
    return f"codes/{code}.json"


def _find_own(store: Store, stage: str, name: str, inputs: dict[str, Any], key: str) -> Manifest | None:
    """Return this code's finished work, found by other code too from now on where a kill came before it could be."""
    found = find_manifest(store, f"{stage}/{key}")
    if found and store.get_json(_latest(stage, name, inputs)) is None:
        store.put_json(_latest(stage, name, inputs), {"manifest": found.reference})
    return found


def _find_other(store: Store, stage: str, name: str, inputs: dict[str, Any]) -> Manifest | None:
    """Return the finished work of other code with these inputs, where it is to be reused."""
    if os.environ.get(OTHER_CODE) != "reuse" or (latest := store.get_json(_latest(stage, name, inputs))) is None:
        return None
    return find_manifest(store, latest["manifest"])


def _reused(stage: str, name: str, made_by: tuple[str, ...], code: str) -> dict[str, str]:
    """Say of work that was not made by this code, or not by this alone, whose it is; empty where it was."""
    if made_by == (code,):
        return {}
    return {f"{stage} {name}": f"reused: made by code {', '.join(made_by)}, this code is {code}"}


def code_changes(store: Store, before: str, ingredients: Ingredients) -> str:
    """Name what is not the same as in the code of a digest."""
    known = store.get_json(_place(before))
    if known is None:
        return "what differs is not known"
    names = changed_ingredients(known, ingredients.found())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"what differs is {', '.join(names[:NAMED])}{more}"


@contextmanager
def work_folder(store: Store, name: str) -> Iterator[Path]:
    """Give an empty folder beside the cache and remove it afterwards, and what killed processes left behind.

    A lock file beside it says that its owner lives: pods may share the cache, where process numbers say nothing.
    """
    parent = store.cache / "work"
    for left in parent.glob("*.lock"):
        with suppress(OSError), locked(left, wait=False, remove=True):  # else its owner lives
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
    folder = parent / f"{name}.{secrets.token_hex(4)}"
    with locked(parent / f"{folder.name}.lock", remove=True):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def run_stage(stage: str, name: str, run_tag: str, output: str, work: Callable[[Store], tuple[Manifest, bool]]) -> str:
    """Do a stage's work for one pipeline run and return the manifest's reference.

    The manifest goes to the file `output` and the outcome to `runs/<run_tag>/` in the store, where the report
    finds it. What the user or the environment got wrong ends the process with one line, code 1 and `error.json`;
    work that was stopped ends it with code RESUME.
    """
    started = time.monotonic()
    try:
        store = Store.from_environment()
        manifest, found = work(store)
        write_atomically(Path(output), json.dumps(to_document(manifest)))
        record = {"stage": stage, "name": name, "ok": True, "found": found, "manifest": manifest.reference,
                  "reused": manifest.reused}  # fmt: skip
        _record(store, run_tag, record, started)
    except Exception as error:
        _fail(stage, name, run_tag, output, error, started)
        raise SystemExit(RESUME if isinstance(error, StoppedError) else 1) from None
    print(f"{stage} {name}: {'found' if found else 'done'} in {time.monotonic() - started:.1f} s", flush=True)
    return manifest.reference


def _record(store: Store, run_tag: str, record: dict[str, Any], started: float) -> None:
    record["seconds"] = round(time.monotonic() - started, 3)
    store.put_json(f"{records_prefix(run_tag)}{record['stage']}.{record['name']}.json", record)


def _fail(stage: str, name: str, run_tag: str, output: str, error: Exception, started: float) -> None:
    """Say what went wrong in one line, and leave it beside the output and, where the store answers, with the run."""
    expected = isinstance(error, (ValueError, RuntimeError, OSError))
    if not expected:
        traceback.print_exc()
    what = str(error) if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: {error}"
    print(f"error: {stage} {name}: {what}", flush=True)
    leave_reason(f"{stage} {name}: {what}")
    record = {"stage": stage, "name": name, "ok": False, "found": False, "manifest": None, "reused": {}, "error": what}
    write_atomically(Path(output).with_name("error.json"), json.dumps(record, indent=1))
    try:
        _record(Store.from_environment(), run_tag, record, started)
    except RuntimeError as second:
        print(f"error: {stage} {name}: the failure could not be recorded either: {second}", flush=True)


def leave_reason(what: str) -> None:
    """Leave why this process fails where Kubernetes and Argo show it, in a pod."""
    if TERMINATION.exists():
        with suppress(OSError):  # the log has it too
            TERMINATION.write_bytes(what.encode()[:TERMINATION_BYTES])


def main(run: Callable[..., str]) -> None:
    """Run a stage's `run` from the command line: one option per parameter, the docstring as help."""
    program = f"python -m {run.__module__.removesuffix('.stage')}"
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=program, description=inspect.getdoc(run), formatter_class=form)
    for parameter in inspect.signature(run).parameters.values():
        parser.add_argument(f"--{parameter.name.replace('_', '-')}", required=True, type=parameter.annotation)
    print(run(**vars(parser.parse_args())))
