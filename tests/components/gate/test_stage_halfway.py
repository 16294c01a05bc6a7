"""A registry that dies while the gate talks to it: whatever has been done by then, the champion is one or the other."""

import http.client
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.gate.stage import run
from tests.components.train.trial import Trial
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.store import tracking
from wordmill.store.storage import Store


class Line(ThreadingHTTPServer):
    """Hands requests on to a server until it is cut: as many as it may, the last one's answer lost or not."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.target, self.uri = urlsplit(target).netloc, f"http://127.0.0.1:{self.server_port}"
        self.cut(0)

    def cut(self, after: int, loses_answer: bool = False) -> None:
        """Let this many more requests through."""
        self.after, self.loses_answer, self.asked = after, loses_answer, 0


class Relay(BaseHTTPRequestHandler):
    server: Line

    def relay(self) -> None:
        """Answer as the server does, or end the connection without a word."""
        self.server.asked += 1
        if self.server.asked > self.server.after:
            return
        connection = http.client.HTTPConnection(self.server.target)
        headers = {name: value for name, value in self.headers.items() if name != "Transfer-Encoding"}
        connection.request(self.command, self.path, self.body(), headers)
        answer = connection.getresponse()
        content = answer.read()
        if self.server.loses_answer and self.server.asked == self.server.after:
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        """Read the request's body; an empty file is sent in chunks, of which the last is none."""
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        assert int(self.rfile.readline(), 16) == 0
        self.rfile.readline()
        return b""

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = relay  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Keep the requests out of the tests' output."""


@pytest.fixture
def line(mlflow_uri: str) -> Iterator[Line]:  # noqa: F811
    with Line(mlflow_uri) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def trial(store: Store, tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Trial(store, tmp_path)


def fails(arguments: dict[str, str], line: Line) -> bool:
    """Run the gate over the line and tell whether it failed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", line.uri)
        try:
            run(**arguments)
        except SystemExit:
            return True
    return False


def requests_of_a_promotion(trial: Trial, line: Line) -> int:
    """Promote two models, the second over the line, and return how many requests that took."""
    trial.decide(trial.candidate("first", {"a": "1111"}))
    line.cut(sys.maxsize)
    assert not fails(trial.candidate("second", {"a": "1111"}), line)
    assert trial.champion() == "2"
    return line.asked


def check_cut(trial: Trial, line: Line, after: int, printed: pytest.CaptureFixture[str]) -> None:
    """Cut the line after so many requests: the gate fails in one line, the champion stays, a new gate promotes."""
    arguments, before = trial.candidate(f"cut{after}", {"a": "1111"}), trial.champion()
    line.cut(after)
    printed.readouterr()
    assert fails(arguments, line)
    (error,) = [text for text in printed.readouterr().out.splitlines() if text.startswith("error: ")]
    assert f"MLFLOW_TRACKING_URI {line.uri}" in error
    assert trial.champion() == before
    facts = trial.decide(arguments)
    # One version for each model: what the failed gate registered is used.
    assert (facts["outcome"], facts["version"]) == ("promoted", str(len(trial.versions())))
    assert facts["version"] == str(int(before) + 1) == trial.champion()
    # Nor is there anything logged that no version has, nor a claim that holds the next gate up.
    sources = {version.source for version in trial.versions()}
    experiment = tracking.open_run(trial.store, arguments["run_tag"]).experiment_id
    mine = f"name = '{trial.name}'"
    logged = tracking.connect().search_logged_models([experiment], filter_string=mine, max_results=1000)
    assert {f"models:/{model.model_id}" for model in logged} == sources
    assert list(trial.store.keys("leases/")) == []


def test_a_registry_that_dies_between_registering_and_promoting_keeps_its_champion(
    trial: Trial, line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    check_cut(trial, line, requests_of_a_promotion(trial, line) - 1, capsys)


@pytest.mark.slow
def test_nothing_is_half_promoted_whichever_request_the_registry_dies_at(
    trial: Trial, line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    for after in range(requests_of_a_promotion(trial, line)):
        check_cut(trial, line, after, capsys)


def test_a_promotion_whose_answer_is_lost_is_found_done_by_the_next_gate(trial: Trial, line: Line) -> None:
    whole, arguments = requests_of_a_promotion(trial, line), trial.candidate("third", {"a": "1111"})
    line.cut(whole, loses_answer=True)
    assert fails(arguments, line)
    assert trial.champion() == "3"
    facts = trial.decide(arguments)
    assert (facts["outcome"], facts["version"]) == ("kept", "3")
    told = "the same model is the champion already, as version 3: against the champion, version 2: mean difference"
    assert facts["reasons"][0].startswith(told)
