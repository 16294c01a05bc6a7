import json
from pathlib import Path

import pytest
from kfp import local
from kfp.local import subprocess_task_handler
from kfp.local.io import IOStore

from pipelines.building import build_pipeline
from pipelines.cli import command_line
from pipelines.local import conditions
from pipelines.local.run import _execute


def stages_of_a_night(output: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a nightly pipeline by kfp.local; `fresh` says `output`, and fetch, the first stage behind it, fails."""
    called = []

    def run(full_command: list[str], env_vars: dict[str, str]) -> int:
        stage = full_command[full_command.index("--function_to_execute") + 1]
        called.append(stage)
        outputs = json.loads(full_command[full_command.index("--executor_input") + 1])["outputs"]
        Path(outputs["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
        for value in outputs.get("parameters", {}).values():
            Path(value["outputFile"]).write_text(output, encoding="utf-8")
        Path(outputs["outputFile"]).write_text(json.dumps({"parameterValues": {"Output": output}}), encoding="utf-8")
        return int(stage == "fetch")

    monkeypatch.setattr(subprocess_task_handler, "run_local_subprocess", run)
    _, pipeline = build_pipeline(command_line().parse_args(["run", "quickstart"]), nightly=True)
    _execute(pipeline, local.SubprocessRunner(use_venv=False), "a-night", folder)
    return called


@pytest.mark.parametrize(
    ("output", "stages"), [("changed", ["fresh", "fetch", "report"]), ("unchanged", ["fresh", "report"])]
)
def test_a_branch_is_taken_by_its_tasks_output(
    output: str, stages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stages_of_a_night(output, tmp_path, monkeypatch) == stages


def test_an_output_that_is_python_code_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    reach = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'catch_warnings'][0]()"
    code = f"' == '' or {reach}._module.__builtins__['open']('{made}', 'w') or 'changed"
    assert stages_of_a_night(code, tmp_path, monkeypatch) == ["fresh", "report"]
    assert not made.exists()


def test_a_condition_of_another_form_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"condition '1 == 1': expected a task's output == 'text'"):
        conditions.holds("1 == 1", IOStore())
