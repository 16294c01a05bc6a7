"""The service's page: what it may do, and in a real browser a picture that is dropped on it, read and drawn upon."""

import base64
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from components.serve import page
from tests.components.export.exported import png
from tests.components.serve.server import serving
from tests.components.train.trained import DATA
from tests.waiting import LIMIT_S
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.pictures.image import Picture
from wordmill.recipe.sections import Data
from wordmill.text.charset import Charset, charset_of
from wordmill.text.decoding import CtcCodec

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
# c, nothing, a, nothing, t: each its frame of five, sure by 0.95, 0.7 and 0.5.
FRAMES = ((13, 0.95), (0, 0.99), (11, 0.7), (0, 0.99), (30, 0.5))
# Half way between the frames' middles, 0.1, 0.5 and 0.9; the outer ones as far to their other side.
SPANS = [("0%", "30%"), ("30%", "40%"), ("70%", "30%")]
# Drops a picture on the page as the browser would, then sends what is there to the service, which keeps it.
TRIAL = """
addEventListener("load", async () => {
  const bytes = Uint8Array.from(atob("PICTURE"), one => one.charCodeAt(0)), data = new DataTransfer();
  document.documentElement.style.width = "WIDTHpx";
  data.items.add(new File([bytes], "word.png", {type: "image/png"}));
  const drawn = new Promise(done => new MutationObserver(() => document.querySelector("li, .error") && done())
    .observe(document.querySelector("#readings"), {childList: true, subtree: true, attributes: true}));
  document.dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
  await drawn;
  const seen = [...document.querySelectorAll("main *")].map(one => one.getBoundingClientRect().right);
  const upright = document.querySelector("main").dataset.turned === "true";
  await asked(JSON.stringify({
    text: document.querySelector(".text").textContent, sticksOut: Math.max(...seen) > WIDTH + 0.5,
    spans: [...document.querySelectorAll(".span")].map(one =>
      upright ? [one.style.top, one.style.height] : [one.style.left, one.style.width]),
    sure: [...document.querySelectorAll("li")].map(one => [...one.children].map(part => part.textContent)),
    grades: [...document.querySelectorAll("li span")].map(one => one.className),
    shown: document.querySelector(".picture img").naturalWidth,
  }), "");
});
"""


class Cats:
    """Reads every picture as `cat`."""

    def __call__(self, images: Picture) -> np.ndarray:
        logits = np.empty((len(images), len(FRAMES), 37), np.float32)
        for frame, (number, odds) in enumerate(FRAMES):
            logits[:, frame] = np.log((1 - odds) / 36)
            logits[:, frame, number] = np.log(odds)
        return logits


class Listening(TextRecogniser):
    """Keeps what is sent to it as JSON, and reads pictures."""

    def __init__(self, data: Data) -> None:
        super().__init__(data, CtcCodec(charset=charset_of(data)), Cats())
        self.told: dict[str, Any] = {}
        self.heard = threading.Event()

    def fit_and_share(self, image: Any) -> tuple[Picture, float]:
        if not image.startswith(b"{"):
            return super().fit_and_share(image)
        self.told = json.loads(image)
        self.heard.set()
        raise ValueError("no picture")


def recogniser(turned: bool = False) -> Listening:
    return Listening(dataclasses.replace(DATA, turn_tall=turned))


def test_the_page_may_run_and_ask_nothing_but_what_is_its_own() -> None:
    with serving(recogniser()) as url:
        answer, head = requests.get(url, timeout=LIMIT_S), requests.head(url, timeout=LIMIT_S)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert (head.status_code, head.text) == (200, "")
    rules = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert (rules["connect-src"], rules["img-src"]) == ("'self'", "blob:")
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"https?://|<link|src=|style=|innerHTML", answer.text)


def test_the_page_names_the_characters_and_no_more_of_them_than_fit() -> None:
    assert "knows 36 characters: 0123456789abcdefghijklmnopqrstuvwxyz<" in page.page_text(recogniser())
    odd = TextRecogniser(DATA, CtcCodec(charset=Charset(name="odd", symbols='<&"')), Cats())
    assert "knows 3 characters: &lt;&amp;&quot;<" in page.page_text(odd)
    symbols = "".join(map(chr, range(0x4E00, 0x4E00 + 6623)))
    many = page.page_text(TextRecogniser(DATA, CtcCodec(charset=Charset(name="many", symbols=symbols)), Cats()))
    assert f"knows 6,623 characters: {symbols[:120]} …<" in many


@pytest.mark.slow
@pytest.mark.parametrize(("width", "turned"), [(390, False), (1280, False), (390, True)])
def test_a_picture_that_is_dropped_is_read_and_its_characters_are_marked(
    width: int, turned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CHROMIUM:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path")
    picture = np.full((300, 60, 1) if turned else (60, 300, 1), 128, np.uint8)
    trial = TRIAL.replace("PICTURE", base64.b64encode(png(picture)).decode()).replace("WIDTH", str(width))
    text = page.TEMPLATE.read_text(encoding="utf-8").replace("</script>", f"{trial}</script>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    monkeypatch.setattr(page, "TEMPLATE", tmp_path / "page.html")
    listening = recogniser(turned)
    with serving(listening) as url, browser(url, tmp_path):
        assert listening.heard.wait(LIMIT_S)
    assert listening.told == {
        "text": "cat", "sticksOut": False, "spans": [list(span) for span in SPANS], "shown": picture.shape[1],
        "sure": [["c", "95.0 %"], ["a", "70.0 %"], ["t", "50.0 %"]], "grades": ["sure", "unsure", "doubtful"],
    }  # fmt: skip


@contextmanager
def browser(url: str, folder: Path) -> Iterator[None]:
    """Have an address open in a browser without a window."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--window-size=1280,900", "--remote-debugging-port=0", url]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
