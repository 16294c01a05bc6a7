import io
from pathlib import Path

from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

from pipelines.building import build_pipeline
from pipelines.cli import command_line
from pipelines.local.run import StageOutput, _leave_cluster, _unfinished_tasks

ENGINE = """\
    [KFP Executor 2026-11-20 22:12:59,588 INFO]: Looking for component `fetch` in /tmp/x
    [KFP Executor 2026-11-20 22:12:59,589 INFO]: Got executor_input:
    {
        "inputs": {
            "parameterValues": {}
        }
    }
    fetch words: 3/3 files
    [KFP Executor 2026-11-20 22:12:59,589 INFO]: Wrote executor output file to /tmp/x.


"""


def test_the_terminal_shows_what_stages_say_and_the_log_keeps_everything() -> None:
    terminal, log = io.StringIO(), io.StringIO()
    output = StageOutput(terminal, log)
    for piece in (ENGINE[:100], ENGINE[100:300], ENGINE[300:]):  # lines arrive in pieces
        output.write(piece)
    assert terminal.getvalue() == "fetch words: 3/3 files\n"
    assert log.getvalue() == ENGINE


def test_a_task_without_its_record_is_not_believed(tmp_path: Path) -> None:
    good, bad = tmp_path / "run" / "fetch", tmp_path / "run" / "train"
    for task in (good, bad):
        task.mkdir(parents=True)
        (task / "verified").touch()
    (good / "executor_output.json").touch()
    assert _unfinished_tasks(tmp_path) == "tasks without outputs: train"
    (bad / "executor_output.json").touch()
    assert _unfinished_tasks(tmp_path) == ""


def test_nothing_is_tried_again_on_this_machine() -> None:
    options = command_line().parse_args(["run", "quickstart"])
    _, pipeline = build_pipeline(options)
    assert "retry_policy" in str(pipeline.pipeline_spec)
    _leave_cluster(pipeline)
    assert "retry_policy" not in str(pipeline.pipeline_spec)


def test_training_on_an_accelerator_of_this_machine_is_no_jobs() -> None:
    options = command_line().parse_args(["run", "quickstart", "--device", "cuda", "--processes", "1"])
    _, pipeline = build_pipeline(options)
    given = pipeline.pipeline_spec.root.input_definitions
    assert OrchestratorUtils.join_user_inputs_and_defaults({"run_tag": "r"}, given)["gang"]["device"] == "cuda"
    _leave_cluster(pipeline)
    assert OrchestratorUtils.join_user_inputs_and_defaults({"run_tag": "r"}, given)["gang"] == {}
