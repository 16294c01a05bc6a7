"""Stages after training that were killed at any of their points and are started again: the same, and nothing twice.

Where a start takes seconds of a framework or a server, about twenty points are taken that lie evenly among all.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from components import keys
from components.evaluate import stage as evaluate_stage
from components.export import stage as export_stage
from components.fresh import stage as fresh_stage
from components.gate import stage as gate_stage
from components.report import stage as report_stage
from components.smoke import stage as smoke_stage
from tests.components.evaluate.test_stage import ReadsPixels, arguments
from tests.components.fresh.test_stage import TEXTS
from tests.components.gate.finished_run import FinishedRun
from tests.components.smoke.smoked import SETTINGS, onnx_of, put, put_onnx
from tests.components.train.trained import put_trained, write_manifest
from tests.components.train.trial import Trial
from tests.crash_places import VOLATILE, Place, in_a_copy, table, told
from tests.crashes import Found, try_all
from tests.mlflow_server import start
from wordmill.recipe import frameworks
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Export
from wordmill.store import tracking
from wordmill.store.artifacts import read_manifest
from wordmill.store.runs import records_prefix
from wordmill.store.storage import Store

EVEN = 20
MEASURED = (*VOLATILE, *smoke_stage.MEASURED)


@pytest.fixture
def place(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "tries", monkeypatch)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where a stage's inputs lie, the same for all tries."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_fresh(place: Place, files: Path) -> None:
    (files / "labels.txt").write_text("a.png a", encoding="utf-8")
    entry = {
        "source": f"file://{files}",
        "reader": "label_file",
        "samples": 1,
        "licence": "CC0",
        "labels": "labels.txt",
    }
    sources = json.dumps({"words": entry})

    def work() -> None:
        fresh_stage.run(recipe="tiny", sources=sources, run_tag="r", output=str(place.output), **TEXTS)

    def earlier() -> None:  # what a run of this tag has left that was not finished
        place.store.put_json(f"{records_prefix('r')}train.crnn.json", {"ok": False})

    table("fresh", try_all(place.given(earlier), in_a_copy(work), place.look))


@pytest.mark.slow
def test_evaluate(place: Place, files: Path) -> None:
    place.know(keys.of_evaluate("pytorch", "cpu", "mindocr"))
    place.patch.setattr(frameworks, "twin", lambda framework, module: SimpleNamespace(Predictor=ReadsPixels))
    given = place.given(lambda: arguments(place.store, files))
    told_of = {"benchmark": "words", "evaluation": '{"protocol": "mindocr"}', "device": "cpu", "run_tag": "r",
               "model": str(files / "inputs" / "m"), "shards": str(files / "inputs" / "s")}  # fmt: skip
    work = in_a_copy(lambda: evaluate_stage.run(**told_of, output=str(place.output)))
    table("evaluate", try_all(given, work, place.look))


@pytest.mark.slow
def test_export(place: Place, files: Path) -> None:
    place.know(keys.of_export("onnx"))
    model, settings = files / "train.json", to_json(Export(formats=("onnx",)))
    given = place.given(lambda: write_manifest(model, put_trained(place.store, seed=1)))

    def work() -> None:
        export_stage.run(export_format="onnx", export=settings, model=str(model), run_tag="r", output=str(place.output))

    table("export", try_all(given, in_a_copy(work), place.look, EVEN))


@pytest.mark.slow
def test_smoke(place: Place, files: Path) -> None:
    place.know(keys.of_smoke("onnx"))
    place.patch.setattr(smoke_stage, "MEASURE_S", 0.01)

    def make() -> None:
        trained = put(place.store, 1)
        write_manifest(files / "train.json", trained)
        write_manifest(files / "export.json", put_onnx(place.store, trained, onnx_of()))

    def work() -> None:
        smoke_stage.run(export=to_json(SETTINGS), exported=str(files / "export.json"),
                        model=str(files / "train.json"), run_tag="r", output=str(place.output))  # fmt: skip

    table("smoke", try_all(place.given(make), in_a_copy(work), lambda: place.look(volatile=MEASURED), EVEN))


def in_a_copy_each(place: Place, look: Callable[[], Found]) -> Callable[[], Found]:
    """Return what looks in a copy of this process, whose connections to MLflow are its own."""
    return lambda: told(look, place.folder)


@pytest.mark.slow
def test_gate(place: Place) -> None:
    """A second candidate is promoted: one version of each, the champion whole, and no claim that holds up the next."""
    place.patch.setenv("MLFLOW_TRACKING_URI", start(place.store.endpoint))
    now: list[tuple[Trial, dict[str, str]]] = []

    def prepare(number: int) -> Path:
        folder = place.prepare(number)
        trial = Trial(place.store, folder)
        told(lambda: trial.decide(trial.candidate("first", {"a": "1111"})), folder)
        now[:] = [(trial, told(lambda: trial.candidate("second", {"a": "1111"}), folder))]
        return folder

    def look() -> Found:
        trial = now[0][0]
        champion, best = tracking.holder(trial.name, "champion"), tracking.holder(trial.name, "best")
        versions = sorted(str(version.version) for version in trial.versions())
        trained = read_manifest(trial.folder / "second.json").reference
        found = tracking.registered(trial.name, trained)
        result = (versions, champion and champion.version, best and best.version, found and found.version)
        # A gate that was killed when all was done and one that finds it done have each a record of their own.
        kinds = Counter(key.split("/")[0] for key in place.documents() if not key.startswith("manifests/gate/"))
        return Found(result, [], (kinds, list(place.store.keys("leases/")), place.files()))

    work = in_a_copy(lambda: gate_stage.run(**now[0][1]))
    table("gate", try_all(prepare, work, in_a_copy_each(place, look), EVEN))


@pytest.mark.slow
def test_report(place: Place) -> None:
    """The page and the summary are whole, and MLflow has one run, ended, with all that belongs to it, once."""
    place.patch.setenv("MLFLOW_TRACKING_URI", start(place.store.endpoint))

    def prepare(number: int) -> Path:
        folder = place.prepare(number)
        seed = FinishedRun(store=place.store, folder=folder / "files", run_tag=folder.name)
        told(lambda: finish(seed), folder)
        return folder

    def work() -> None:
        report_stage.run(recipe="tiny", run_tag=place.folder.name, state="COMPLETE", expected="[]", nightly="true",
                         output=str(place.output))  # fmt: skip

    def look() -> Found:
        run = tracking.connect().get_run(tracking.open_run(place.store, place.folder.name).run_id)
        summary = place.store.get_json(f"runs/{place.folder.name}/summary.json") or {}
        client = tracking.connect()
        tables = sorted(entry.path for entry in client.list_artifacts(run.info.run_id))
        result = (summary["ok"], summary["errors"], run.info.status, sorted(run.data.metrics), sorted(run.data.params),
                  sorted(run.data.tags), tables, len(run.inputs.dataset_inputs))  # fmt: skip
        missing = [name for name in ("report.html", "summary.json", "summary.md")
                   if not place.output.with_name(name).is_file()]  # fmt: skip
        about = [
            key.replace(place.folder.name, "r") for key in place.documents() if not key.startswith("manifests/report")
        ]
        return Found(result, missing, (about, place.files()))

    table("report", try_all(prepare, in_a_copy(work), in_a_copy_each(place, look), EVEN))


def finish(seed: FinishedRun) -> None:
    """Leave what all stages before leave in the store."""
    seed.fetched("words")
    seed.shards("words")
    trained = seed.trained()
    seed.evaluation("words", "1110", trained)
    seed.parity("onnx")
    seed.gate()
