import base64
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests

from components.serve import batching, body, load
from tests.components.export.exported import pictures, png, write_onnx
from tests.components.serve.server import serving
from tests.components.train.trained import DATA
from tests.waiting import LIMIT_S, wait_until
from wordmill.inference.packaged.pyfunc import TextRecogniser, open_onnx
from wordmill.pictures.image import Picture
from wordmill.text.charset import charset_of
from wordmill.text.decoding import CtcCodec

SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Network:
    """Knows every picture by its first pixel, and stops before a batch while it is held."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None

    def __call__(self, images: Picture) -> np.ndarray:
        self.sizes.append(len(images))
        assert self.free.wait(LIMIT_S)
        if self.error:
            raise self.error
        logits = np.full((len(images), 1, 37), -99, np.float32)
        logits[np.arange(len(images)), 0, images[:, 0, 0, 0]] = 0
        return logits


def word(number: int) -> bytes:
    """A picture that the network reads as one character."""
    return png(np.full((32, 100, 1), 1 + number % 36, np.uint8))


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def url(network: Network) -> Iterator[str]:
    with serving(TextRecogniser(DATA, CtcCodec(charset=charset_of(DATA)), network)) as address:
        yield address
        network.free.set()


def post(url: str, content: bytes, kind: str = "image/png") -> requests.Response:
    return requests.post(f"{url}/read", data=content, headers={"Content-Type": kind}, timeout=LIMIT_S)


def post_files(url: str, *files: bytes) -> requests.Response:
    form = [("images", (f"{number}.png", content)) for number, content in enumerate(files)]
    return requests.post(f"{url}/read", files=form, timeout=LIMIT_S)


def metric(url: str, name: str) -> float:
    text = requests.get(f"{url}/metrics", timeout=LIMIT_S).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "image/jpeg; anything=1"])
def test_a_body_is_one_picture(url: str, kind: str) -> None:
    answer = post(url, word(11), kind)
    assert (answer.status_code, answer.json()) == (200, {"readings": [{"name": "", "text": "b", "confidence": 1.0}]})


def test_a_form_is_many_pictures_in_their_order(url: str, network: Network) -> None:
    answer = post_files(url, *map(word, range(64)))
    assert [reading["text"] for reading in answer.json()["readings"]] == [SYMBOLS[number % 36] for number in range(64)]
    assert [reading["name"] for reading in answer.json()["readings"]] == [f"{number}.png" for number in range(64)]
    assert network.sizes == [64]


def test_what_an_exported_file_reads_is_what_its_framework_does(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model")
    recogniser = open_onnx(tmp_path / "model" / "card.json")
    images = [png(image) for image in pictures(6)]
    expected = recogniser.predict(images)
    assert len(set(expected["text"])) > 3
    with serving(recogniser) as url:
        readings = post_files(url, *images).json()["readings"]
    assert [reading["text"] for reading in readings] == list(expected["text"])
    assert [reading["confidence"] for reading in readings] == pytest.approx(list(expected["confidence"]), abs=1e-3)


def test_requests_that_come_together_share_batches(url: str, network: Network) -> None:
    network.free.clear()
    with ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(post, url, word(0))]
        wait_until(lambda: network.sizes == [1])  # alone, so it did not wait for others
        answers += [pool.submit(post, url, word(number)) for number in range(1, 100)]
        wait_until(lambda: metric(url, "wordmill_waiting_images") == 99)
        network.free.set()
        texts = [answer.result().json()["readings"][0]["text"] for answer in answers]
    assert texts == [SYMBOLS[number % 36] for number in range(100)]
    assert network.sizes == [1, 64, 35]
    assert metric(url, "wordmill_batch_images_count") == 3
    assert metric(url, 'wordmill_batch_images_bucket{le="48.0"}') == 2
    assert metric(url, "wordmill_images_total") == 100


def test_what_is_no_picture_is_refused_with_a_sentence(url: str, network: Network) -> None:
    for answer, status, told in [
        (post(url, b"hello", "text/plain"), 415, "content type 'text/plain': expected image/*, application/octet"),
        (post(url, b"a=b", "application/x-www-form-urlencoded"), 415, "content type 'application/x-www-form"),
        (post(url, b""), 422, "1 of 1 cannot be read: image 0: empty file"),
        (post(url, word(1)[:50]), 422, "image 0: not a whole picture: 50 bytes that begin with"),
        (post_files(url, word(1), b"<svg/>"), 422, "1 of 2 cannot be read: image 1 (1.png): not decodable: it is SVG,"),
        (post(url, b"no form", "multipart/form-data; boundary=x"), 422, "Invalid multipart data"),
        (post(url, b"no form", "multipart/form-data"), 422, "Missing boundary"),
        (post(url, b"no form", f"multipart/form-data; boundary={'x' * 300}"), 422, "of more than 70 characters"),
        (post(url, b"--x--\r\n", "multipart/form-data; boundary=x"), 422, "the form has no file"),
        (requests.get(f"{url}/read", timeout=LIMIT_S), 405, "Method Not Allowed"),
    ]:
        assert (answer.status_code, told in answer.json()["detail"]) == (status, True), answer.text
    assert network.sizes == []
    assert metric(url, 'wordmill_requests_total{status="422"}') == 7
    assert metric(url, 'wordmill_requests_total{status="415"}') == 2


def test_too_much_is_refused_before_it_is_taken_in(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IMAGE_BYTES", 1000)
    monkeypatch.setattr(body, "REQUEST_BYTES", 20_000)
    monkeypatch.setattr(body, "IMAGES", 3)
    for answer, told in [
        (post(url, bytes(1001)), "the body has more than 1000 bytes"),
        (post_files(url, word(1), bytes(1001)), "1.png: 1001 bytes, expected at most 1000"),
        (post_files(url, bytes(20_001)), "the body has more than 20000 bytes"),
        (post_files(url, *[word(1)] * 4), "Too many files. Maximum number of files is 3."),
    ]:
        assert (answer.status_code, answer.json()["detail"]) == (413, told)
    assert post(url, word(3)).json()["readings"][0]["text"] == "3"
    # A client that announces more than it may send is not waited for.
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), LIMIT_S) as client:
        head = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999999999\r\n\r\n"
        client.sendall(head.encode() + bytes(5000))
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    """A form with the boundary x: of each part its headers and its content."""
    return b"".join(f"--x\r\n{headers}\r\n\r\n".encode() + content + b"\r\n" for headers, content in parts) + end


NAMED = 'Content-Disposition: form-data; name="images"'
FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (f'{NAMED}; filename="a b.png"', "a b.png"),
        (f"{NAMED}; filename*=UTF-8''%E5%9B%BE.png", "图.png"),
        (f'{NAMED}; filename="图.png"', "图.png"),
        (f"{NAMED}\r\nContent-Type: image/png", ""),
        (f"{NAMED}\r\nContent-Type: application/octet-stream", ""),
        (NAMED, ""),  # bytes that are no text
        ('content-disposition: form-data; name=images; filename=""', ""),
    ],
)
def test_a_file_of_a_form_is_known_however_a_client_names_it(url: str, headers: str, name: str) -> None:
    field = ('Content-Disposition: form-data; name="language"', b"en")
    answer = post(url, form(field, (headers, word(11)), field), FORM)
    assert (answer.status_code, answer.json()) == (200, {"readings": [{"name": name, "text": "b", "confidence": 1.0}]})


def test_a_form_that_is_cut_off_anywhere_is_refused(url: str, network: Network) -> None:
    files = [(f'{NAMED}; filename="{number}.png"', word(number)) for number in (1, 2)]
    whole = form(*files)
    for length in [*range(1, len(whole) - 4, 7), len(whole) - 4, len(whole) - 3]:
        answer = post(url, whole[:length], FORM)
        assert answer.status_code == 422, length
    assert answer.json()["detail"] == "the form ends before its last boundary: 1 of 2 parts that it begins are whole"
    assert network.sizes == []
    assert [reading["text"] for reading in post(url, whole[:-2], FORM).json()["readings"]] == ["1", "2"]


def test_a_packed_body_is_refused_with_what_is_taken(url: str) -> None:
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    answer = requests.post(f"{url}/read", data=gzip.compress(word(1)), headers=headers, timeout=LIMIT_S)
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")
    assert answer.json()["detail"].startswith("content encoding 'gzip': pictures are packed already")


def test_pictures_in_json_are_read(url: str) -> None:
    one, two = (base64.b64encode(word(number)).decode() for number in (3, 4))
    answer = requests.post(f"{url}/read", json={"images": [one, f"data:image/png;base64,{two}"]}, timeout=LIMIT_S)
    assert [reading["text"] for reading in answer.json()["readings"]] == ["3", "4"]
    for content, status, told in [
        (b'{"images": []}', 422, "expected JSON"),
        (b'{"image": "x"}', 422, "expected JSON"),
        (b"[" * 100_000, 422, "expected JSON"),
        (b'{"images": ["/etc/hostname!"]}', 422, "image 0: expected a picture's bytes in base64"),
        (b'{"images": [7]}', 422, "image 0: expected a picture's bytes in base64"),
        (json.dumps({"images": [one] * 65}).encode(), 413, "Too many images. Maximum number of images is 64."),
    ]:
        answer = post(url, content, "application/json")
        assert (answer.status_code, told in answer.json()["detail"]) == (status, True), answer.text


def test_health_and_metrics_answer_those_who_ask_for_the_head_alone(url: str) -> None:
    for path in ("health", "metrics"):
        answer = requests.head(f"{url}/{path}", timeout=LIMIT_S)
        assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("kind", ["image/png", FORM, "application/json"])
def test_a_client_that_asks_first_is_told_before_it_sends(url: str, kind: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), LIMIT_S) as client:
        head = f"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 10000000000\r\n"
        client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_full_queue_and_too_many_requests_are_told_to_come_again(
    url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "ROOM", 10)
    network.free.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(post, url, word(1))
        wait_until(lambda: network.sizes == [1])
        waiting = pool.submit(post_files, url, *map(word, range(8)))
        wait_until(lambda: metric(url, "wordmill_waiting_images") == 8)
        refused = post_files(url, word(1), word(2), word(3))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["detail"] == "too many pictures are waiting: try again"
        monkeypatch.setattr(load, "REQUESTS", 2)
        refused = post(url, word(1))
        assert (refused.status_code, refused.json()["detail"]) == (503, "2 requests are in hand already: try again")
        assert requests.get(f"{url}/health", timeout=LIMIT_S).status_code == 200
        network.free.set()
        assert [first.result().status_code, waiting.result().status_code] == [200, 200]
    assert post(url, word(5)).status_code == 200


def test_a_batch_that_fails_is_told_and_the_next_is_read(url: str, network: Network) -> None:
    network.error = RuntimeError("out of memory at 0x7f")
    answer = post_files(url, word(1), word(2))
    assert (answer.status_code, answer.json()["detail"]) == (500, "the network failed: RuntimeError")
    network.error = None
    assert post(url, word(4)).json()["readings"][0]["text"] == "4"
    assert requests.get(f"{url}/health", timeout=LIMIT_S).json() == {"status": "ready"}
    assert metric(url, 'wordmill_requests_total{status="500"}') == 1


def test_a_client_that_goes_harms_nobody(url: str, network: Network) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), LIMIT_S) as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nx")
    wait_until(lambda: metric(url, 'wordmill_requests_total{status="499"}') == 1)
    network.free.clear()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), LIMIT_S) as client:
        content = word(1)
        head = f"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        wait_until(lambda: network.sizes == [1])
    network.free.set()
    assert post(url, word(7)).json()["readings"][0]["text"] == "7"


def test_what_is_asked_for_beside_the_text_comes_of_one_pass(url: str, network: Network) -> None:
    form = [("images", (f"{number}.png", word(number))) for number in range(3)]
    found = requests.post(f"{url}/read?characters=1", files=form, timeout=LIMIT_S).json()["readings"]
    assert [(one["text"], one["characters"][0]["text"]) for one in found] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert network.sizes == [3]
    assert metric(url, "wordmill_batch_images_sum") == 3


def test_characters_and_alternatives_come_when_they_are_asked_for(url: str) -> None:
    def read(query: str) -> requests.Response:
        return requests.post(
            f"{url}/read{query}", data=word(10), headers={"Content-Type": "image/png"}, timeout=LIMIT_S
        )

    assert set(read("?characters=0").json()["readings"][0]) == {"name", "text", "confidence"}
    (reading,) = read("?characters=1&alternatives=2").json()["readings"]
    assert (reading["text"], reading["confidence"]) == ("a", 1.0)
    assert reading["characters"] == [{"text": "a", "confidence": 1.0, "start": 0.0, "end": 1.0}]
    assert reading["alternatives"][0] == {"text": "a", "probability": 1.0}
    assert [one["probability"] for one in reading["alternatives"]] == [1.0, 0.0]
    for query, told in (
        ("?alternatives=x", "alternatives: found 'x', expected a number of 0 to 20"),
        (f"?alternatives={'9' * 5000}", f"alternatives: found '{'9' * 5000}', expected a number of 0 to 20"),
        ("?characters=yes", "characters: found 'yes', expected 0 or 1"),
    ):
        assert (read(query).status_code, read(query).json()["detail"]) == (422, told)
