"""The page in a real browser: Chromium without a window, at the widths of a desk and of a phone."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from components.report.gather import gather_run
from components.report.page import FOLDER, collect_extras, report_html
from components.report.summary import summarise
from tests.components.gate.finished_run import FinishedRun
from wordmill.store.storage import Store
from wordmill.text.metrics import mcnemar_exact, wilson_interval

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
LIMIT_S = 120
# crnn_vgg7's ten benchmarks: samples, right ones, and right ones of the champion.
BENCHMARKS = {
    "CUTE80": (288, 203, 200), "IC03_860": (860, 811, 813), "IC03_867": (867, 818, 815), "IC13_1015": (1015, 925, 921),
    "IC13_857": (857, 792, 790), "IC15_1811": (1811, 1311, 1303), "IC15_2077": (2077, 1379, 1372),
    "IIIT5k_3000": (3000, 2531, 2523), "SVT": (647, 541, 543), "SVTP": (645, 478, 473),
}  # fmt: skip
SLIPS = [("o", "0"), ("l", "1"), ("i", "l"), ("", "s"), ("e", ""), ("rn", "m"), ("5", "s"), ("é", ""), ("a", "o"),
         ("国", "囯"), (" ", ""), ("u", "v"), ("c", "e"), ("g", "9"), ("t", "f"), ("<", "")]  # fmt: skip


def picture(text: str) -> bytes:
    image = np.full((32, 100, 3), (60, 110, 140), np.uint8)
    cv2.putText(image, text, (4, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (240, 240, 240), 2, cv2.LINE_AA)
    return cv2.imencode(".png", image)[1].tobytes()


def facts(total: int, correct: int) -> dict[str, Any]:
    rng = random.Random(total)
    low, high = wilson_interval(correct, total)
    lengths = [total * share // 200 for share in (4, 14, 30, 36, 32, 26, 20, 14, 9, 6, 3, 2, 1, 1, 1, 1, 0, 1, 0, 1, 1)]
    by_length = [{"length": i + 1, "total": n, "correct": int(n * correct / total * (1 - 0.012 * i))}
                 for i, n in enumerate(lengths) if n]  # fmt: skip
    counts = [int(total * (i + 1) ** 3 / 14400) if i not in (0, 3) else 0 for i in range(15)]
    bins = [{"low": i / 15, "high": (i + 1) / 15, "count": n, "confidence": (i + 0.55) / 15 if n else None,
             "accuracy": int(n * min(1, (i + 0.2) / 15)) / n if n else None} for i, n in enumerate(counts)]  # fmt: skip
    slips = [{"truth": truth, "read": read, "count": rng.randrange(1, total // (3 + 4 * i) + 2)}
             for i, (truth, read) in enumerate(SLIPS)]  # fmt: skip
    return {"total": total, "correct": correct, "accuracy": correct / total, "low": low, "high": high,
            "ned": 0.5 + correct / total / 2, "by_length": by_length, "confusion": slips,
            "calibration": {"ece": 0.02, "bins": bins}, "temperature": 0.5,
            "uncalibrated": {"ece": 0.2, "bins": bins}, "left_out": {"longer than 25": 3}}  # fmt: skip


def seeded(store: Store, folder: Path) -> FinishedRun:
    """A whole run of crnn_vgg7 that beats its champion and what is published, with long names and many slips."""
    seed = FinishedRun(store=store, folder=folder, run_tag="crnn-vgg7-20250101-120000-abcdef")
    names = ["a_training_set_with_a_long_name", *BENCHMARKS]
    seed.fetched(*names)
    seed.shards(*names)
    trained = seed.trained()
    for name, (total, correct, _) in BENCHMARKS.items():
        seed.evaluation(name, "1" + "0" * 12, trained, picture=picture(name[:6]), **facts(total, correct))
    seed.parity("onnx")
    seed.parity("mindir", difference=2e-3)
    seed.parity("onnx_int8")
    seed.not_made("om", "CANN's atc is not on PATH: install CANN and source its set_env.sh")
    rows = [
        {"name": name, "total": total, "accuracy": ours / total, "champion_accuracy": theirs / total, "gained": 30,
         "difference": (ours - theirs) / total, "lost": 30 - ours + theirs, "floor": 0.6 if name == "CUTE80" else None,
         "p": mcnemar_exact(30, 30 - ours + theirs)}
        for name, (total, ours, theirs) in BENCHMARKS.items()
    ]  # fmt: skip
    rival = {"mean": 0.8203, "difference": 0.0039, "interval": [0.0012, 0.0071], "bound": 0.0016, "margin": 0.005}
    seed.gate(rivals={"the champion, version 11": rival}, benchmarks=rows, version="12",
              reasons=["against the champion, version 11: mean difference +0.39 points"])  # fmt: skip
    return seed


def failed(store: Store, folder: Path) -> FinishedRun:
    seed = FinishedRun(store=store, folder=folder, run_tag="failed-1")
    seed.failure("fetch", "datasets", "data set 'st': https://data.example/" + "a" * 150 + ".zip: no space left")
    return seed


def page_of(store: Store, seed: FinishedRun, recipe: str, ok: bool) -> str:
    gathered = gather_run(store, seed.run_tag)
    state = "COMPLETE" if ok else "FAILED"
    return report_html(summarise(gathered, recipe, seed.run_tag, state), collect_extras(store, gathered))


def browse(page: Path, *switches: str) -> str:
    """Run the browser on a page without a window; returns what it prints."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--log-level=3",
               f"--user-data-dir={page.parent / 'profile'}", *switches, page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return done.stdout


def measured(page: Path, width: int) -> dict[str, Any]:
    """Return what the browser lays out in a frame of this width, in CSS pixels.

    A frame, because a browser's window has a smallest width that is more than a phone's.
    """
    script = """
      <script>
      onload = () => {
        const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
        const beyond = [...inner.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg, details:not([open])")
          && e.getBoundingClientRect().right > root.clientWidth + 0.5).map(e => e.outerHTML.slice(0, 80));
        const tight = [...inner.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1)
          .map(e => e.closest("section").querySelector("h2").textContent);
        const pictures = [...inner.images].filter(e => !e.closest("details:not([open])") && !e.naturalWidth).length;
        document.title = JSON.stringify({width: root.clientWidth, scroll: root.scrollWidth, beyond, tight, pictures});
        document.body.textContent = document.title;
      };
      </script>"""
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(f'<!doctype html><iframe src="{page.name}" style="width:{width}px;height:900px;border:0"></iframe>'
                     + script)  # fmt: skip
    dumped = browse(frame, "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom")
    found = re.search(r"<title>(\{.*?\})</title>", dumped, re.DOTALL)
    assert found, dumped[-2000:]
    result: dict[str, Any] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return result


@pytest.fixture(params=["finished", "failed"])
def page(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Path:
    if not CHROMIUM:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path: the page's looks cannot be measured")
    ok = request.param == "finished"
    seed = seeded(store, tmp_path / "files") if ok else failed(store, tmp_path / "files")
    file = tmp_path / "report.html"
    file.write_text(page_of(store, seed, "crnn_vgg7", ok), encoding="utf-8")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_of_the_page(page: Path, width: int) -> None:
    found = measured(page, width)
    assert found == {"width": width, "scroll": width, "beyond": [], "tight": [], "pictures": 0}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_readers_colour_scheme(page: Path, width: int, scheme: str) -> None:
    """Its screenshot of the whole page stays beside it, for people to look at."""
    frame, shot = page.with_name("shot.html"), page.with_name(f"{width}-{scheme}.png")
    style = f"width:{width}px;height:6000px;border:0;display:block"
    frame.write_text(f'<!doctype html><body style="margin:0"><iframe src="{page.name}" style="{style}"></iframe>')
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(frame, f"--window-size={max(width, 500)},6000", f"--screenshot={shot}", *dark)
    pixels = cv2.imread(str(shot))
    assert pixels is not None
    blue, green, red = pixels[2, 2]
    assert f"#{red:02x}{green:02x}{blue:02x}" == colours(scheme)["back"]
    assert len(np.unique(pixels[:1000, :width].reshape(-1, 3), axis=0)) > 50  # there is something on it


def colours(scheme: str) -> dict[str, str]:
    """The style sheet's colours of a scheme by name, as #rrggbb."""
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#\w+);", blocks[("light", "dark").index(scheme)]))
    return {name: value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])
            for name, value in found.items()}  # fmt: skip


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


PAIRS = [("text", "back"), ("muted", "back"), ("text", "card"), ("muted", "card"), ("bad", "card"), ("s0", "card"),
         ("good", "good-back"), ("bad", "bad-back"), ("found", "found-back")]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, success criterion 1.4.3)."""
    used = colours(scheme)
    for text, ground in PAIRS:
        high, low = sorted((luminance(used[text]), luminance(used[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"
