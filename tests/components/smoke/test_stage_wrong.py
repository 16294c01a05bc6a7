import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.smoke import launch
from tests.components.smoke import ascend_doubles
from tests.components.smoke.smoked import CODEC, STEPS, failure, onnx_of, put, put_files, put_onnx
from tests.components.train.trained import DATA, MODEL
from wordmill.inference import card
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.pt.model import build
from wordmill.models.pt.weights import dump
from wordmill.store.storage import Store
from wordmill.text.decoding import codec_of


def other_weights(saved: Checkpoint) -> Checkpoint:
    return replace(saved, tensors={name: values[::-1].copy() for name, values in saved.tensors.items()})


def not_finite(saved: Checkpoint) -> Checkpoint:
    return replace(saved, tensors=saved.tensors | {"head.bias": np.full_like(saved.tensors["head.bias"], np.nan)})


def more_characters(saved: Checkpoint) -> Checkpoint:
    data = replace(DATA, charset="english94")
    return replace(saved, data=data, tensors=dump(build(MODEL, data, codec_of(MODEL, data).classes)))


def characters_in_another_order(saved: Checkpoint) -> Checkpoint:
    """The same network with its head's rows as a charset from z to 0 would have them."""
    order = [0, *range(36, 0, -1)]
    heads = {name: saved.tensors[name][order] for name in ("head.weight", "head.bias")}
    return replace(saved, tensors=saved.tensors | heads)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, "format onnx, batch 1 does not agree with the trained recogniser: "),
        (not_finite, "format onnx, batch 1: 18500 of 18500 logits are not finite"),  # 20 x 25 x 37
        (more_characters, "format onnx, batch 1: logits have 95 classes, charset lower36 needs 37"),
        (characters_in_another_order, "format onnx, batch 1 does not agree with the trained recogniser: "),
    ],
)
def test_a_wrong_network_is_caught(
    store: Store, tmp_path: Path, change: Callable[[Checkpoint], Checkpoint], said: str
) -> None:
    trained = put(store, 1)
    told = failure(put_onnx(store, trained, onnx_of(change=change)), trained, tmp_path)
    assert told.startswith(said)
    assert "20 of 20 texts" not in told


def test_one_wrong_file_among_those_of_fixed_batches_is_named(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    files = {"1": ("model_b1.onnx", onnx_of(batch=1)), "16": ("model_b16.onnx", onnx_of(2, batch=16))}
    told = failure(put_files(store, trained, "onnx", files), trained, tmp_path)
    assert told.startswith("format onnx, batch 16 does not agree with the trained recogniser: ")


def test_a_card_of_other_characters_is_caught(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    content = onnx_of()
    right = card.describe_file(DATA, MODEL, CODEC.charset, STEPS, decoded=True)
    turned = right | {"charset": {"name": "lower36", "symbols": CODEC.charset.symbols[::-1]}}
    told = failure(put_onnx(store, trained, content, told=turned), trained, tmp_path)
    assert told.startswith("format onnx, batch 1 does not agree with the trained recogniser: ")


def test_a_card_of_another_file_is_caught(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    told = {
        **card.describe_file(DATA, MODEL, CODEC.charset, STEPS),
        "files": {"onnx": [{"name": "model.onnx", "sha256": "a"}]},
    }
    said = failure(put_onnx(store, trained, b"a file", told=told), trained, tmp_path)
    digest = hashlib.sha256(b"a file").hexdigest()
    assert said == (
        f"format onnx: card.json is of other files: found {{'model.onnx': '{digest}'}}, "
        "it tells of {'model.onnx': 'a'}"
    )


def test_a_card_of_other_outputs_than_the_file_has_is_caught(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    content = onnx_of(decoded=False)
    told = failure(put_onnx(store, trained, content), trained, tmp_path)
    assert told.startswith("format onnx: the file does not run: ")
    assert "tokens" in told


@pytest.mark.parametrize("export_format", ["onnx", "mindir"])
def test_a_truncated_file_is_an_error_that_names_its_format(store: Store, tmp_path: Path, export_format: str) -> None:
    trained = put(store, 1)
    half = onnx_of()
    files = {"any": (f"model.{export_format}", half[: len(half) // 2])}
    told = failure(put_files(store, trained, export_format, files), trained, tmp_path)
    assert told.startswith(f"format {export_format}: the file does not run: ")


def test_a_file_of_another_training_is_refused(store: Store, tmp_path: Path) -> None:
    one, other = put(store, 1), put(store, 2)
    assert f"was made from {one.reference}, expected {other.reference}" in failure(
        put_onnx(store, one, b"anything"), other, tmp_path
    )


def test_a_file_that_crashes_its_runtime_is_an_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ascend_doubles.install(monkeypatch, tmp_path)
    trained = put(store, 1)
    exported = put_files(store, trained, "lite", {"any": ("model_lite.mindir", b"crash")})
    assert failure(exported, trained, tmp_path) == "format lite: its runtime ended with code -11: bad graph"


def test_a_file_that_hangs_its_runtime_is_an_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ascend_doubles.install(monkeypatch, tmp_path)
    monkeypatch.setattr(launch, "PROBE_LIMIT_S", 3)
    trained = put(store, 1)
    exported = put_files(store, trained, "lite", {"any": ("model_lite.mindir", b"hang")})
    assert failure(exported, trained, tmp_path) == "format lite: its runtime did not finish within 3 s"
