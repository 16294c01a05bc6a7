import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from wordmill.models.checkpoint import KEY, Checkpoint, check_fit, load, save
from wordmill.recipe.loading import load_recipe

RECIPE = load_recipe(Path(__file__).resolve().parents[3] / "pipelines" / "recipes" / "quickstart.yaml")


def checkpoint(order: tuple[str, ...] = ("b", "a")) -> Checkpoint:
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([1.5])}
    tensors = {name: values[name] for name in order}
    return Checkpoint(
        tensors=tensors, data=RECIPE.data, model=RECIPE.model, train=RECIPE.train, step=7, temperature=0.25
    )


def test_a_checkpoint_carries_its_recipe_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, checkpoint())
    back = load(path)
    assert (back.data, back.model, back.train) == (RECIPE.data, RECIPE.model, RECIPE.train)
    assert (back.step, back.temperature) == (7, 0.25)
    assert back.tensors["a"].tobytes() == checkpoint().tensors["a"].tobytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_checkpoint_is_for_those_whom_the_umask_lets(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "model.safetensors", checkpoint())
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == mode
    assert len(list(tmp_path.iterdir())) == 1


def test_equal_checkpoints_are_equal_bytes(tmp_path: Path) -> None:
    save(tmp_path / "1", checkpoint(("a", "b")))
    save(tmp_path / "2", checkpoint(("b", "a")))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="model.safetensors: not a readable safetensors file"):
        load(path)
    save(path, checkpoint())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load(path)


@pytest.mark.parametrize("metadata", ["{}", "[]", "no JSON", '{"data": 3, "model": "{}"}', "[" * 9999])
def test_metadata_that_is_damaged_is_refused(metadata: str, tmp_path: Path) -> None:
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "model.safetensors", metadata={KEY: metadata})
    with pytest.raises(ValueError, match="model.safetensors: no checkpoint of this project: its metadata is damaged"):
        load(tmp_path / "model.safetensors")


def test_weights_that_do_not_fit_are_named() -> None:
    tensors = checkpoint().tensors
    check_fit({"a": (2, 3), "b": (1,)}, tensors, "here")
    with pytest.raises(
        ValueError, match=r"missing \['c'\], surplus \['b'\], shapes \['a is \(2, 3\), expected \(3, 2\)'\]"
    ):
        check_fit({"a": (3, 2), "c": (1,)}, tensors, "here")


def test_a_checkpoint_of_before_temperatures_has_1_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, checkpoint())
    with safe_open(path, "np") as file:
        told = json.loads(file.metadata()[KEY])
    for temperature, shown in ((-1.0, "-1.0"), (float("nan"), "nan")):
        save_file(checkpoint().tensors, path, metadata={KEY: json.dumps(told | {"temperature": temperature})})
        with pytest.raises(ValueError, match=f"metadata is damaged: temperature is {shown}, expected a positive"):
            load(path)
    del told["temperature"]
    save_file(checkpoint().tensors, path, metadata={KEY: json.dumps(told)})
    assert load(path).temperature == 1.0
