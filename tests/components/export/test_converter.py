import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest

from components.export import converter
from components.export.om import write_aipp
from tests.components.export.converter_doubles import ATC, CONVERTER_LITE, Double
from tests.components.export.exporting import export, failure, names, text_of
from tests.components.train.trained import DATA, put_trained, write_manifest
from wordmill.pictures.image import normalise
from wordmill.store.artifacts import read_manifest
from wordmill.store.storage import Store


@pytest.fixture
def model(store: Store, tmp_path: Path) -> str:
    return write_manifest(tmp_path / "train.json", put_trained(store, seed=1))


@pytest.fixture
def atc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    monkeypatch.setenv("WORDMILL_SOC_VERSION", "Ascend910B3")
    return Double("atc", ATC, tmp_path / "cann", monkeypatch)


@pytest.fixture
def lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    return Double("converter_lite", CONVERTER_LITE, tmp_path / "lite", monkeypatch)


def test_om_has_one_file_per_batch_size_made_for_the_named_chip(
    store: Store, model: str, tmp_path: Path, atc: Double
) -> None:
    made = export("om", model, tmp_path)
    assert names(made) == ["model_b1.om", "model_b16.om", "model_b64.om", "log.txt", "card.json", "reference.npz"]
    assert text_of(store, made, "model_b16.om") == "converted\n"
    assert made.facts["files"] == {"1": "model_b1.om", "16": "model_b16.om", "64": "model_b64.om"}
    assert (made.facts["precision"], made.facts["soc_version"]) == ("fp16", "Ascend910B3")
    assert len(atc.commands) == 3
    for command, batch in zip(atc.commands, (1, 16, 64), strict=True):
        assert command == {
            "model": f"model_b{batch}.onnx", "output": f"model_b{batch}",  # names alone: atc takes few letters in paths
            "framework": "5", "input_format": "NCHW", "input_shape": f"images:{batch},1,32,100",
            "soc_version": "Ascend910B3", "precision_mode": "force_fp16", "output_type": "FP32", "log": "error",
        }  # fmt: skip
    assert text_of(store, made, "log.txt").count("ATC run success") == 3
    given = onnx.load(atc.folder / "model_b16.onnx")
    assert [port.name for port in given.graph.output] == ["logits"]


def test_om_options_of_the_recipe_reach_atc(store: Store, model: str, tmp_path: Path, atc: Double) -> None:
    made = export("om", model, tmp_path, batches=(16, 4), gears=True, aipp=True, opset=11, output_type="FP16",
                  precision_mode="must_keep_origin_dtype")  # fmt: skip
    assert names(made) == ["model.om", "log.txt", "aipp.cfg", "card.json", "reference.npz"]
    assert (made.facts["files"], made.facts["gears"], made.facts["precision"]) == ({"any": "model.om"}, [4, 16], "fp32")
    (command,) = atc.commands
    assert command["input_shape"] == "images:-1,1,32,100"
    assert command["dynamic_batch_size"] == "4,16"
    assert (command["output_type"], command["precision_mode"]) == ("FP16", "must_keep_origin_dtype")
    assert command["insert_op_conf"] == "aipp.cfg"
    assert onnx.load(atc.folder / "model.onnx").opset_import[0].version == 11
    assert text_of(store, made, "aipp.cfg") == (
        "aipp_op {\n  aipp_mode: static\n  related_input_rank: 0\n  input_format: YUV400_U8\n"
        "  src_image_size_w: 100\n  src_image_size_h: 32\n  csc_switch: false\n  rbuv_swap_switch: false\n"
        "  mean_chn_0: 0\n  min_chn_0: 127.5\n  var_reci_chn_0: 0.00784314\n}\n"
    )
    card = json.loads(text_of(store, made, "card.json"))
    assert card["gears"] == [4, 16]
    assert card["input"] == {"name": "images", "shape": ["N", 32, 100, 1], "layout": "NHWC", "dtype": "uint8",
                             "range": [0, 255], "colour": "grey"}  # fmt: skip


@pytest.mark.parametrize(("channels", "middle", "kind"), [(1, 127.5, "YUV400_U8"), (3, 128.0, "RGB888_U8")])
def test_the_chip_normalises_as_this_project_does(
    channels: Literal[1, 3], middle: float, kind: str, tmp_path: Path
) -> None:
    data = dataclasses.replace(DATA, channels=channels, middle=middle)
    lines = write_aipp(data, tmp_path).read_text(encoding="utf-8").splitlines()
    told = dict(line.strip().split(": ") for line in lines[1:-1])
    assert told["input_format"] == kind
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1).repeat(channels, axis=3)
    expected = normalise(levels, middle)[0, :, :, 0]
    for channel in range(channels):  # by the formula of CANN's documents
        mean, least, scale = (float(told[f"{key}_chn_{channel}"]) for key in ("mean", "min", "var_reci"))
        assert np.abs((np.arange(256) - mean - least) * scale - expected[channel]).max() < 1e-5


def test_om_for_another_system_is_found_under_its_longer_name(
    model: str, tmp_path: Path, atc: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATC_DOES", "suffix")
    made = export("om", model, tmp_path, batches=(1, 16))
    assert names(made)[:2] == ["model_b1.om", "model_b16.om"]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("fail", r"atc ended with code 1: the chip is not known here: WORDMILL_SOC_VERSION is 'Ascend' and the name"),
        ("nothing", r"atc ended well but wrote no model_b1\.om\n\$ .*/atc --model=.*\nATC run success\n"),
        ("empty", r"atc ended well but wrote no model_b1\.om\n"),
        ("hang", r"atc did not end within 0\.2 s and was killed\n"),
    ],
)
def test_om_fails_with_what_atc_said(
    does: str, said: str, store: Store, model: str, tmp_path: Path, atc: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATC_DOES", does)
    if does == "hang":
        monkeypatch.setattr(converter, "LIMIT_S", 0.2)
    told = failure("om", model, tmp_path)
    assert re.match(said, told), told
    kept = Path(told.rpartition("the whole log is ")[2])
    assert kept.read_text(encoding="utf-8").startswith("$ ")


def test_lite_for_a_processor_takes_any_batch(store: Store, model: str, tmp_path: Path, lite: Double) -> None:
    made = export("lite", model, tmp_path)
    assert names(made) == ["model.mindir", "log.txt", "card.json", "reference.npz"]
    assert (made.facts["files"], made.facts["device"]) == ({"any": "model.mindir"}, "cpu")
    assert text_of(store, made, "model.mindir") == "converted\n"
    (command,) = lite.commands
    assert command.pop("modelFile") == "model.onnx"
    assert command.pop("outputFile") == "model"
    assert command == {"fmk": "ONNX", "saveType": "MINDIR", "optimize": "general"}


@pytest.mark.parametrize(("chip", "target"), [("Ascend310P3", "ascend_oriented:310P"), ("", "ascend_oriented")])
def test_lite_for_a_chip_has_a_configuration_per_batch_size(
    chip: str, target: str, store: Store, model: str, tmp_path: Path, lite: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORDMILL_SOC_VERSION", chip)
    made = export("lite", model, tmp_path, lite_device="ascend", batches=(1, 8))
    assert made.facts["files"] == {"1": "model_b1.mindir", "8": "model_b8.mindir"}
    assert (made.facts["precision"], made.facts["device"]) == ("fp16", "ascend")
    assert json.loads(text_of(store, made, "card.json"))["device"] == "ascend"
    assert [command["optimize"] for command in lite.commands] == [target, target]
    assert lite.commands[1]["configFile"] == "model_b8.cfg"
    assert text_of(store, made, "model_b8.cfg") == (
        "[ascend_context]\ninput_format=NCHW\ninput_shape=images:[8,1,32,100]\nprecision_mode=enforce_fp16\n"
        "output_type=FP32\n"
    )


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("fail", "converter_lite ended with code 1: the chip has no such operator"),
        ("nothing", "converter_lite ended well but wrote no model.mindir"),
    ],
)
def test_lite_fails_with_what_the_converter_said(
    does: str, said: str, model: str, tmp_path: Path, lite: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITE_DOES", does)
    assert failure("lite", model, tmp_path).startswith(said)


def test_a_required_format_without_its_tool_fails_and_says_what_to_install(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORDMILL_SOC_VERSION", raising=False)
    assert "WORDMILL_SOC_VERSION is not set" in failure("om", model, tmp_path)
    monkeypatch.setenv("WORDMILL_SOC_VERSION", "Ascend910B3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failure("om", model, tmp_path).startswith("format om: atc is not on PATH: install CANN")
    assert failure("lite", model, tmp_path).startswith("format lite: converter_lite is not on PATH: unpack mindspore-l")
    monkeypatch.setitem(sys.modules, "wordmill.models.pt.export", None)
    told = failure("onnx", model, tmp_path)
    assert told.endswith("pip install -r requirements/torch.txt -c requirements/constraints.txt")


def test_an_optional_format_that_cannot_be_made_is_told_and_made_as_soon_as_it_can(
    store: Store, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORDMILL_SOC_VERSION", raising=False)
    optional = {"formats": (), "optional": ("om",)}
    refused = export("om", model, tmp_path, **optional)
    assert (refused.objects, refused.facts["format"], refused.facts["made"]) == ((), "om", False)
    assert refused.facts["reason"].startswith("format om: WORDMILL_SOC_VERSION is not set: ")
    assert refused.inputs["model"] == read_manifest(model).reference
    assert "export om: not made: format om: WORDMILL_SOC_VERSION is not set" in capsys.readouterr().out
    monkeypatch.setenv("WORDMILL_SOC_VERSION", "Ascend910B3")
    monkeypatch.setenv("ATC_DOES", "fail")
    Double("atc", ATC, tmp_path / "cann", monkeypatch)
    reason = export("om", model, tmp_path, **optional).facts["reason"]
    assert reason.startswith("atc ended with code 1: the chip is not known here")
    assert "\n" not in reason
    monkeypatch.setenv("ATC_DOES", "convert")
    assert export("om", model, tmp_path, **optional).facts["made"] is True
