import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.report import heartbeat
from tests.manifests.rendered import templates, variables
from wordmill.store.runs import beat
from wordmill.store.storage import Store

LIMIT = timedelta(hours=36)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """What a webhook of the team's has been told."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WORDMILL_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook")
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def watched(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("WORDMILL_NIGHTLY", "crnn_r34, rare_r34")
    monkeypatch.setenv("WORDMILL_SILENCE_H", "36")
    return store


def ended(store: Store, recipe: str, finished: str) -> None:
    store.put_json(f"heartbeats/{recipe}.json", {"run_tag": f"{recipe}-1", "finished": finished, "outcome": "promoted"})


def test_silence_is_measured_from_the_last_good_night(store: Store) -> None:
    ended(store, "crnn_r34", "2026-11-20T03:00:00Z")
    assert heartbeat.silence(store, "crnn_r34", LIMIT, datetime(2026, 11, 21, 15, 0, 0, tzinfo=UTC)) == ""
    assert heartbeat.silence(store, "crnn_r34", LIMIT, datetime(2026, 11, 21, 15, 0, 1, tzinfo=UTC)) == (
        "crnn_r34: no night has ended well for 36 h, the last was crnn_r34-1"
    )
    assert heartbeat.silence(store, "other", LIMIT, datetime.now(UTC)) == "other: no night has ended well yet"


def test_a_night_that_ends_in_the_future_is_told(store: Store) -> None:
    ended(store, "crnn_r34", "2026-11-20T03:00:00Z")
    assert heartbeat.silence(store, "crnn_r34", LIMIT, datetime(2026, 11, 20, 2, 55, 0, tzinfo=UTC)) == ""
    assert heartbeat.silence(store, "crnn_r34", LIMIT, datetime(2026, 11, 20, 2, 54, 59, tzinfo=UTC)) == (
        "crnn_r34: its last night, crnn_r34-1, ends in the future, 2026-11-20T03:00:00Z: set the clocks right"
    )


def test_nights_in_time_are_no_news(
    watched: Store, webhook: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for recipe in ("crnn_r34", "rare_r34"):
        beat(watched, recipe, f"{recipe}-7", "nothing new")
    assert heartbeat.main() == 0
    assert capsys.readouterr().out == "nights are in time: crnn_r34, rare_r34\n"
    assert webhook == []


def test_nights_that_stay_out_are_told_once_together(watched: Store, webhook: list[dict[str, str]]) -> None:
    ended(watched, "crnn_r34", "2026-01-01T00:00:00Z")
    beat(watched, "rare_r34", "rare_r34-7", "refused")
    assert heartbeat.main() == 1
    (message,) = webhook
    assert message["text"].startswith("crnn_r34: no night has ended well for ")
    assert "rare_r34" not in message["text"]


def test_without_a_webhook_the_code_tells(watched: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDMILL_WEBHOOK", "")
    assert heartbeat.main() == 1


def test_heartbeats_that_cannot_be_read_are_told_too(
    watched: Store, webhook: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert heartbeat.main() == 1
    (message,) = webhook
    assert message["text"].startswith("the heartbeats of crnn_r34, rare_r34 cannot be read: ")


@pytest.mark.usefixtures("store")
def test_the_program_runs_as_the_manifests_start_it() -> None:
    (container,) = templates("local")["wordmill-heartbeat"]["spec"]["containers"]
    entries = {name: entry["value"] for name, entry in variables(container).items() if "value" in entry}
    assert (entries["WORDMILL_NIGHTLY"], entries["WORDMILL_SILENCE_H"]) == ("", "36")
    command = [sys.executable, *container["command"][1:]]
    done = subprocess.run(command, env=os.environ | entries, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "nights are in time: none is watched\n"), done.stderr
