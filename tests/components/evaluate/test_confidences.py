from pathlib import Path

import pytest

from components.evaluate.confidences import find_or_read
from tests.components.evaluate.test_stage import _reads_pixels, arguments  # noqa: F401 (a fixture)
from tests.components.gate.finished_run import FinishedRun
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.storage import Store

pytestmark = pytest.mark.usefixtures("_reads_pixels")
# cat and ab 0.805, dig and y 0.170, moon 0.996 (test_stage)
COUNTED = {"0.15": 2, "0.80": 2, "0.95": 1}


def trained(store: Store, folder: Path, told: dict[str, str], validated: str, **facts: object) -> Manifest:
    known = read_manifest(told["model"])
    seed = FinishedRun(store=store, folder=folder / "other", run_tag="r")
    weights = {"model.safetensors": store.fetch(known.object("model.safetensors")).read_bytes()}
    inputs = {"symbols": known.inputs["symbols"], "val_sets": [validated]}
    return seed.manifest("train", "crnn", weights, {"framework": "pytorch", **facts}, inputs=inputs)


def test_a_recogniser_is_read_with_where_validation_is_not_its_own(store: Store, tmp_path: Path) -> None:
    told = arguments(store, tmp_path)
    combined, other = read_manifest(told["shards"]), trained(store, tmp_path, told, "another index")
    assert find_or_read(store, other, ("words",), combined, "cpu") == (COUNTED, False)
    assert find_or_read(store, other, ("words",), combined, "cpu") == (COUNTED, True)


def test_of_its_own_validation_training_has_counted(store: Store, tmp_path: Path) -> None:
    told = arguments(store, tmp_path)
    combined = read_manifest(told["shards"])
    own = trained(store, tmp_path, told, "index of the samples", confidences={"0.50": 7})
    assert find_or_read(store, own, ("words",), combined, "cpu") == ({"0.50": 7}, True)
    before = trained(store, tmp_path, told, "index of the samples")
    assert find_or_read(store, before, ("words",), combined, "cpu") == (None, True)
