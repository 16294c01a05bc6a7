"""Clients that send half a request, or too slowly, or take no answer."""

import json
import re
import select
import socket
import threading
from contextlib import ExitStack, suppress

import pytest
import requests

from components.serve import load, receiving
from tests.components.serve.server import serving
from tests.components.serve.test_app import Network, metric, post, word
from tests.components.train.trained import DATA
from tests.waiting import LIMIT_S, wait_until
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.text.charset import charset_of
from wordmill.text.decoding import CtcCodec

SOON_S = 0.2
LATER_S = 1.0  # where a whole request must come in time, however busy the machine is
HEAD = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"


def recogniser(network: Network) -> TextRecogniser:
    return TextRecogniser(DATA, CtcCodec(charset=charset_of(DATA)), network)


def connect(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), LIMIT_S)


def everything(client: socket.socket) -> bytes:
    """What comes until the service closes."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_stalled_uploads_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "REQUESTS", 4)
    with serving(recogniser(Network())) as url, ExitStack() as stalled:
        for _ in range(40):
            stalled.enter_context(connect(url)).sendall(HEAD + b"x")
        wait_until(lambda: metric(url, "wordmill_body_bytes") == 40)
        assert post(url, word(11)).json()["readings"][0]["text"] == "b"
        assert requests.get(f"{url}/health", timeout=LIMIT_S).json() == {"status": "ready"}
        stalled.close()
        wait_until(lambda: metric(url, "wordmill_body_bytes") == 0)


@pytest.mark.parametrize("sent", [b"", b"POST /re", b"POST /read HTTP/1.1\r\nHost: x\r\n", b"\r\n", HEAD, HEAD + b"x"])
def test_a_request_that_is_not_whole_in_time_is_refused(sent: bytes) -> None:
    with serving(recogniser(Network()), SOON_S) as url, connect(url) as client:
        client.sendall(sent)
        head, _, told = everything(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(told) == {"detail": "the request is not whole after 0.2 s"}
        if sent.startswith(HEAD):  # what has no head is no request
            wait_until(lambda: metric(url, 'wordmill_requests_total{status="408"}') == 1)


def test_a_body_that_trickles_is_refused_all_the_same() -> None:
    with serving(recogniser(Network()), SOON_S) as url, connect(url) as client:
        client.sendall(HEAD)
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(SOON_S / 20):
                try:
                    client.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        ended.set()
        thread.join()


def test_a_second_request_on_a_connection_has_its_own_time() -> None:
    with serving(recogniser(Network()), LATER_S) as url, connect(url) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
        assert re.findall(rb"HTTP/1.1 (\d+) ", everything(client)) == [b"200", b"408"]


def test_what_is_refused_before_it_is_whole_is_let_go_in_time() -> None:
    with serving(recogniser(Network()), SOON_S) as url, connect(url) as client:
        client.sendall(HEAD.replace(b"image/png", b"text/html"))
        assert everything(client).startswith(b"HTTP/1.1 415 ")


def test_a_request_in_hand_has_no_deadline() -> None:
    network = Network()
    network.free.clear()
    with serving(recogniser(network), LATER_S) as url, connect(url) as client:
        content = word(1)
        client.sendall(HEAD.replace(b"5000", str(len(content)).encode()) + content + b"GET /hea")
        wait_until(lambda: network.sizes == [1])
        with connect(url) as other:  # the time of half a request passes
            everything(other)
        network.free.set()
        told = everything(client)
        assert told.startswith(b"HTTP/1.1 200 ")
        assert told.count(b"HTTP/1.1 408 ") == 1


def test_a_head_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "HEAD_BYTES", 1000)
    with serving(recogniser(Network())) as url, connect(url) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + bytes(1000).replace(b"\0", b"a"))
        assert everything(client).startswith(b"HTTP/1.1 431 ")


def test_a_client_that_takes_no_answer_is_let_go() -> None:
    with serving(recogniser(Network()), SOON_S) as url, connect(url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ended = select.poll()
        ended.register(client, 0)  # nothing but that the other side has gone
        while not ended.poll(0):
            with suppress(OSError):
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")


def test_requests_that_wait_for_no_answer_do_not_pile_up() -> None:
    network = Network()
    network.free.clear()
    with serving(recogniser(network)) as url, connect(url) as client:
        content = word(1)
        first = HEAD.replace(b"5000", str(len(content)).encode()) + content
        client.sendall(first + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * (receiving.PIPELINED + 1))
        assert everything(client).startswith(b"HTTP/1.1 400 ")
        network.free.set()


@pytest.mark.parametrize("sent", [b"", b"POST /re", HEAD + b"x"])
def test_the_end_of_the_service_waits_for_no_stalled_upload(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "GRACE_S", SOON_S)
    with ExitStack() as after:
        with serving(recogniser(Network())) as url:
            client = after.enter_context(connect(url))
            client.sendall(sent)
            wait_until(lambda: metric(url, "wordmill_body_bytes") == sent.endswith(b"x"))
        said = everything(client)
        assert said.startswith(b"HTTP/1.1 503 ") if sent.startswith(HEAD) else said == b""


def test_health_tells_that_too_much_is_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "REQUESTS", 1)
    network = Network()
    network.free.clear()
    with serving(recogniser(network)) as url:
        thread = threading.Thread(target=post, args=(url, word(1)))
        thread.start()
        wait_until(lambda: network.sizes == [1])
        answer = requests.get(f"{url}/health", timeout=LIMIT_S)
        assert (answer.status_code, answer.json()) == (200, {"status": "saturated"})
        assert metric(url, "wordmill_requests_in_hand") == 1
        # Refused by its head: this client never sends its picture.
        with connect(url) as client:
            client.sendall(HEAD)
            assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
        network.free.set()
        thread.join(LIMIT_S)
        assert requests.get(f"{url}/health", timeout=LIMIT_S).json() == {"status": "ready"}
        assert network.sizes == [1]
