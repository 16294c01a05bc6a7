"""`submit` against a server in memory that implements the v2beta1 API: what it asks for, and what it leaves behind."""

import re
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.cluster import client, submit
from pipelines.cluster.client import connect_kubeflow
from tests.pipelines.cluster.clock import Clock
from tests.pipelines.cluster.kfp_state import KfpServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "git_commit", lambda: COMMIT)


def verb(*arguments: str) -> object:
    """Run a verb and return its exit code: a number, or the text of an error."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


def started(spec: str, run_tag: str = "quickstart-1", again: bool = False) -> str:
    """Publish and start, as the verb does, and return the run's id."""
    server = connect_kubeflow()
    return submit.start_run(server, submit.publish(server, "quickstart", spec), run_tag, "quickstart", again).run_id


def test_submit_uploads_a_version_and_starts_a_run_of_it(kfp: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("submit", "quickstart", "--set", "train.epochs=1") == 0
    (pipeline,), (version,) = kfp.made("pipelines"), kfp.made("versions")
    (experiment,), (run,) = kfp.made("experiments"), kfp.made("runs")
    assert pipeline["display_name"] == "wordmill-quickstart"
    assert re.fullmatch("0123456789ab-[0-9a-f]{8}", version["display_name"])
    assert version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "wordmill-quickstart"
    assert train_section(version)["epochs"] == 1
    assert experiment["display_name"] == "wordmill/quickstart"
    assert (run["experiment_id"], run["service_account"]) == (experiment["experiment_id"], "wordmill-stage")
    options = "quickstart --set=train.epochs=1"
    assert run["description"] == f"{options}, version {version['name']}"
    reference = run["pipeline_version_reference"]
    assert reference == {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    tag = run["runtime_config"]["parameters"]["run_tag"]
    assert re.fullmatch(r"quickstart-\d{8}-\d{6}-[0-9a-f]{4}", tag)
    assert run["display_name"] == tag
    assert capsys.readouterr().out.splitlines() == [
        f"pipeline wordmill-quickstart, version {version['display_name']}",
        f"run {tag}",
        f"{kfp.url}/#/runs/details/{run['run_id']}",
    ]


def test_submit_starts_a_night_by_hand(kfp: KfpServer) -> None:
    assert verb("submit", "quickstart", "--nightly") == 0
    (version,), (run,) = kfp.made("versions"), kfp.made("runs")
    assert version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "wordmill-quickstart-nightly"
    assert run["description"].startswith("quickstart --nightly, version")


def train_section(version: dict[str, Any]) -> dict[str, Any]:
    """Return the default of a version's parameter `train_section`."""
    parameters = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    assert parameters["train_section"]["parameterType"] == "STRUCT"
    return dict(parameters["train_section"]["defaultValue"])


def test_submit_with_a_trace_says_where_it_will_be(kfp: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("submit", "quickstart", "--profile", "--smoke") == 0
    (version,), (run,) = kfp.made("versions"), kfp.made("runs")
    assert train_section(version)["profile"] == 20
    assert run["description"].startswith("quickstart --smoke --profile, version")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "trace: among the artifacts of the run in MLflow, below trace/, when training has ended"
    )
    assert verb("submit", "quickstart", "--profile", "--set", "train.profile=5") == 0
    assert train_section(kfp.made("versions")[1])["profile"] == 5


def test_what_is_there_already_is_found_on_later_pages_and_not_made_again(kfp: KfpServer, spec: str) -> None:
    started(spec, "quickstart-1")
    kfp.page_limit = 1
    # A database that compares names without case finds these two as well, and before the right one.
    for kind, name in (("pipelines", "Wordmill-QuickStart"), ("experiments", "Wordmill/Quickstart")):
        right = kfp.tables[kind]
        other = {**kfp.made(kind)[0], "display_name": name}
        kfp.tables[kind] = {"other": other | {f"{kind[:-1]}_id": "other"}, **right}
    started(spec, "quickstart-2")
    counts = {kind: len(kfp.made(kind)) for kind in kfp.tables}
    assert counts == {"pipelines": 2, "versions": 1, "experiments": 2, "runs": 2, "recurringruns": 0}
    first, second = kfp.made("runs")
    assert first["pipeline_version_reference"] == second["pipeline_version_reference"]
    assert first["experiment_id"] == second["experiment_id"]


def test_another_spec_is_another_version_of_the_same_pipeline(kfp: KfpServer, spec: str) -> None:
    started(spec, "quickstart-1")
    started(spec.replace("Train and prove", "Prove and train"), "quickstart-2")
    assert len(kfp.made("pipelines")) == 1
    assert len({version["name"] for version in kfp.made("versions")}) == 2


def test_a_changed_working_tree_is_named_in_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "git_commit", lambda: f"{COMMIT}-dirty")
    # sha256 of "x" begins 2d711642.
    assert submit.version_name("x") == "0123456789ab-dirty-2d711642"


@pytest.mark.parametrize("what", ["lost", "500", "503", "429", "slow"])
@pytest.mark.parametrize(
    "where", ["GET pipelines", "POST pipelines", "POST pipelines/upload_version", "POST experiments", "POST runs"]
)
def test_a_call_that_fails_once_is_repeated_and_nothing_is_made_twice(
    kfp: KfpServer, spec: str, what: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.faults = [(what, where)]
    if what == "slow":
        monkeypatch.setattr(client, "TIMEOUT_S", (30, 1))
    started(spec)
    assert kfp.faults == []
    counts = {kind: len(kfp.made(kind)) for kind in kfp.tables}
    assert counts == {"pipelines": 1, "versions": 1, "experiments": 1, "runs": 1, "recurringruns": 0}


@pytest.mark.parametrize("where", ["POST pipelines", "POST pipelines/upload_version", "POST experiments"])
def test_what_another_process_made_first_is_taken(kfp: KfpServer, spec: str, where: str) -> None:
    started(spec, "quickstart-1")
    kind = {"POST pipelines/upload_version": "versions"}.get(where, where.removeprefix("POST "))
    hidden, kfp.tables[kind] = kfp.tables[kind], {}
    kfp.late = (where, kind, hidden)
    started(spec, "quickstart-2")
    assert kfp.tables[kind] == hidden


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("400", "refuses with 400: the database is away: check KFP_NAMESPACE"),
        ("401", "refuses with 401: .* set KFP_EXISTING_TOKEN"),
        ("403", "refuses with 403: .* ask for the right to it in your namespace"),
        ("404", "refuses with 404: .* check KF_PIPELINES_ENDPOINT"),
        ("page", "answers with a page for people, probably its login: set KFP_EXISTING_TOKEN or KFP_COOKIES"),
    ],
)
def test_a_refusal_ends_in_one_line_that_says_what_to_do(kfp: KfpServer, spec: str, status: str, message: str) -> None:
    kfp.faults = [(status, "GET experiments")]
    with pytest.raises(RuntimeError, match=f"^cannot list the experiments: {kfp.url} {message}") as error:
        started(spec)
    assert "\n" not in str(error.value)
    assert kfp.made("runs") == []


def test_a_server_that_stays_away_is_given_up_in_time(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.05)
    monkeypatch.setattr(client, "time", Clock())
    kfp.faults = [("500", "GET pipelines")] * 9
    with pytest.raises(RuntimeError, match=f"{kfp.url} answers 500: the database is away"):
        started(spec)
    # 0.01 s, 0.02 s, and a third pause of 0.04 s would pass the limit of 0.05 s.
    assert capsys.readouterr().err.count("trying again") == 2


def test_a_failed_run_is_continued_under_its_tag(kfp: KfpServer, spec: str) -> None:
    first = started(spec, "quickstart-7")
    with pytest.raises(ValueError, match=f"'quickstart-7': its run still goes on: {kfp.url}/#/runs/details/{first}"):
        started(spec, "quickstart-7", again=True)
    kfp.tables["runs"][first]["state"] = "FAILED"
    started(spec, "quickstart-7", again=True)
    assert [run["display_name"] for run in kfp.made("runs")] == ["quickstart-7", "quickstart-7 (2)"]
    assert kfp.made("runs")[1]["runtime_config"]["parameters"] == {"run_tag": "quickstart-7"}


def test_a_tag_that_no_run_has_cannot_be_continued(kfp: KfpServer, spec: str) -> None:
    started(spec, "quickstart-7")
    for named in ("quickstart-8", "crnn_r34-1"):
        told = str(verb("submit", "quickstart", "--run-tag", named))
        assert f"'{named}': the experiment of recipe quickstart has no run of that tag, id or name" in told
    assert len(kfp.made("runs")) == 1


@pytest.mark.parametrize("named_by", ["tag", "run_id", "display_name"])
def test_a_failed_night_is_continued_as_a_night_by_what_its_page_shows(kfp: KfpServer, named_by: str) -> None:
    assert verb("schedule", "quickstart") == 0
    night = kfp.tick(kfp.made("recurringruns")[0]["recurring_run_id"], "FAILED")
    tag = f"quickstart-{night['run_id']}"
    assert verb("submit", "quickstart", "--run-tag", tag if named_by == "tag" else night[named_by]) == 0
    again = kfp.made("runs")[1]
    assert again["runtime_config"]["parameters"] == {"run_tag": tag}
    assert again["display_name"] == f"{tag} (2)"
    assert again["pipeline_version_reference"] == night["pipeline_version_reference"]


def test_a_night_is_continued_as_one_again_and_again_and_other_options_are_told(
    kfp: KfpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("schedule", "quickstart", "--set", "train.epochs=1") == 0
    night = kfp.tick(kfp.made("recurringruns")[0]["recurring_run_id"], "FAILED")
    tag = f"quickstart-{night['run_id']}"
    capsys.readouterr()
    assert verb("submit", "quickstart", "--set", "train.epochs=1", "--run-tag", tag) == 0
    assert "it was begun with" not in capsys.readouterr().out
    kfp.made("runs")[1]["state"] = "FAILED"
    assert verb("submit", "quickstart", "--run-tag", tag) == 0
    told = "it was begun with options 'quickstart --set=train.epochs=1', and goes on with 'quickstart'"
    assert told in capsys.readouterr().out.splitlines()
    first, second, third = kfp.made("runs")
    assert first["pipeline_version_reference"]["pipeline_id"] == third["pipeline_version_reference"]["pipeline_id"]
    assert [run["display_name"] for run in (second, third)] == [f"{tag} (2)", f"{tag} (3)"]
    assert third["description"].startswith("quickstart --nightly, version ")
