import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from pipelines.cli import main
from tests.golden import COMPILED
from wordmill.store.stages import OTHER_CODE

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(autouse=True)
def _images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDMILL_REGISTRY", "wordmill")
    monkeypatch.setenv("WORDMILL_TAG", "dev")


@cache
def compile_recipe(recipe: str, *options: str) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{recipe}.yaml"
        with pytest.raises(SystemExit) as end:
            main(["compile", recipe, "-o", str(path), *options])
        assert end.value.code == 0
        return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_pipeline_is_the_golden_one(name: str) -> None:
    golden = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    assert compile_recipe(COMPILED[name][0], *COMPILED[name][1:]) == golden, "changed: look at it, then `make golden`"


def tasks(text: str) -> dict[str, dict]:
    spec = next(iter(yaml.load_all(text, yaml.CSafeLoader)))
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_every_benchmark_and_every_format_is_a_task_of_its_name() -> None:
    compiled = tasks(compile_recipe("quickstart"))
    names = {task["taskInfo"]["name"] for task in compiled.values()}
    assert {"fetch", "shard", "train", "rendered_easy", "rendered_hard", "mindir", "onnx", "gate"} <= names


def test_data_flows_one_way() -> None:
    compiled = tasks(compile_recipe("quickstart"))
    needs = {name: set(task.get("dependentTasks", [])) for name, task in compiled.items()}
    assert needs["fetch"] == set()
    assert needs["shard"] == {"fetch"}
    assert needs["train"] == {"shard"}
    assert needs["evaluate"] == {"shard", "train"}
    assert needs["export"] == {"train"}
    assert needs["smoke"] == {"export", "train"}
    assert needs["evaluate-rivals"] == {"shard", "train"}
    assert needs["gate"] == {"evaluate", "evaluate-2", "evaluate-rivals", "smoke", "smoke-2", "train"}


def test_a_run_that_promotes_nobody_measures_no_champion() -> None:
    compiled = tasks(compile_recipe("quickstart", "--set", "gate.promote=false"))
    assert "evaluate-rivals" not in compiled
    assert compiled["gate"]["inputs"]["parameters"]["rivals"]["runtimeValue"]["constant"] == ""


def test_a_machine_of_ones_own_is_named_by_device_and_processes() -> None:
    spec = compile_recipe("quickstart", "--device", "npu", "--processes", "4")
    given = next(iter(yaml.load_all(spec, yaml.CSafeLoader)))["root"]["inputDefinitions"]["parameters"]
    gang = given["gang"]["defaultValue"]
    assert (gang["resource"], gang["nodes"], gang["processes"]) == ("huawei.com/Ascend910", 1, 4)
    assert given["processes"]["defaultValue"] == 4


@pytest.mark.parametrize("choice", ["reuse", "afresh"])
def test_what_becomes_of_other_codes_work_is_told_to_every_task(choice: str) -> None:
    plain, told = (compile_recipe.__wrapped__("quickstart", *options) for options in ((), (f"--{choice}",)))  # anew
    executors = next(iter(yaml.load_all(told, yaml.CSafeLoader)))["deploymentSpec"]["executors"].values()
    assert all(item["container"]["env"] == [{"name": OTHER_CODE, "value": choice}] for item in executors)
    assert OTHER_CODE not in plain


@pytest.mark.parametrize(
    ("formats", "batches", "environment"),
    [("[mindir, onnx]", "[]", ""), ("[mindir]", "[]", "-pytorch"), ("[onnx]", "[1]", "-pytorch")],
)
def test_the_gate_can_make_the_onnx_file_that_it_registers(formats: str, batches: str, environment: str) -> None:
    keys = ["--set", f"export.formats={formats}", "--set", f"export.batches={batches}"]
    spec = compile_recipe("quickstart", *keys)
    executors = next(iter(yaml.load_all(spec, yaml.CSafeLoader)))["deploymentSpec"]["executors"]
    assert f"/gate{environment}:" in executors["exec-gate"]["container"]["image"]


def test_optional_formats_are_made_and_tried_each_in_its_own_environment() -> None:
    spec = compile_recipe("quickstart", "--set", "export.optional=[om, lite, onnx_int8]")
    document = next(iter(yaml.load_all(spec, yaml.CSafeLoader)))
    tasks = document["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    named = {task["taskInfo"]["name"]: task["componentRef"]["name"] for task in tasks.values()}
    assert {"mindir", "onnx", "om", "lite", "onnx_int8", "om smoke test", "onnx_int8 smoke test"} <= set(named)
    images = {
        name: document["deploymentSpec"]["executors"][named[name].replace("comp", "exec", 1)]["container"]["image"]
        for name in ("om", "lite", "onnx_int8")
    }
    assert [images[name].split("-")[-1].split(":")[0] for name in images] == ["cann", "lite", "pytorch"]


def test_compiling_needs_neither_framework() -> None:
    check = (
        "import sys; sys.modules.update(torch=None, mindspore=None, cv2=None, lmdb=None);"
        "from pipelines.cli import main; main(['compile', 'crnn_r34', '-o', '/dev/null'])"
    )
    path = "import pathlib; pathlib.Path.replace = lambda *a: None;"
    done = subprocess.run([sys.executable, "-c", path + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "./my"], "my: expected a recipe's .yaml file or one of crnn_icdar15, "),
        (["compile", "quickstrat"], "recipe 'quickstrat': did you mean 'quickstart'"),
        (["compile", "quickstart", "--set", "train.epocs=2"], "unknown key 'epocs': did you mean 'epochs'"),
        (["compile", "quickstart", "--benchmarks", "rendered_eazy"], "rendered_eazy.*did you mean 'rendered_easy'"),
        (["compile", "quickstart", "--set", "data.charset=lower63"], "charset 'lower63': did you mean 'lower36'"),
        (["compile", "quickstart", "--framework", "torch"], "train.framework: found 'torch'"),
        (["compile", "quickstart", "--catalogue", "none.yaml"], "none.yaml: no such file"),
        (
            ["compile", "quickstart", "--processes", "3"],
            "global_batch is 64, which 3 processes cannot share equally: the nearest that they can is 63",
        ),
        (["compile", "missing.yaml"], "missing.yaml: no such file"),
        (["compile", "crnn_r34", "--hardware", "cpu", "--device", "npu"], "--hardware cpu names devices and processes"),
    ],
)
def test_a_mistake_ends_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(arguments)
    assert list(tmp_path.iterdir()) == []
