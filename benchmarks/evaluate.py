"""A whole evaluation with crnn_r34 on a processor, against a loop as in deep-text-recognition-benchmark's test.py.

python -m benchmarks.evaluate [--samples 12067] [--threads 2] [--json]

Both read the same rendered words with the same random weights, in turn. The value is processor time per picture, user
and system, which other work on the machine disturbs less than it does the clock. A ratio is the peer's time by ours.
The loop, written anew from what the original does: a picture at a time it decodes and resizes with Pillow and makes a
tensor; the network runs as PyTorch finds it, in float32 and batches of 192; loss, texts, edit distances and confidences
follow, sample by sample.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wordmill.inference.evaluation import facts_of, read_all
from wordmill.models.checkpoint import Checkpoint
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import Picture, fit_picture, normalise
from wordmill.recipe.arguments import from_one
from wordmill.recipe.frameworks import twin
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Evaluation, Recipe
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.sets import ShardSet
from wordmill.synth.renderer import SynthSpec, render
from wordmill.text.decoding import Codec, Reading, codec_of

RECIPE = Path(__file__).resolve().parents[1] / "pipelines" / "recipes" / "crnn_r34.yaml"
SAMPLES = 12_067  # of the ten benchmarks together
GOAL = 1.3
BATCH = 192  # of the loop
PARTS = 8  # of the samples; the contenders take turns
ENLARGED = 3  # rendered words are as small as the network's input, words cut from photographs are larger
CLOSE = 1e-4  # of two logits
PEER = "DTRB-style loop"
RULES = Evaluation(protocol="dtrb")

Files = list[tuple[bytes, str]]  # PNG and label
Row = dict[str, str | float | bool | None]


class Silent:
    """A recogniser without a network, which finds nothing in any picture."""

    def __init__(self, codec: Codec, steps: int) -> None:
        self.codec, self.steps = codec, steps

    def read(self, images: Picture, beams: int) -> Reading:
        """Decode logits that are all 0."""
        return self.codec.decode(np.zeros((len(images), self.steps, self.codec.classes), np.float32))


def words(samples: int) -> Files:
    """Render words and encode them in colour."""
    spec = SynthSpec(seed=1, count=samples, fonts="test", words="test", difficulty="mixed")
    files = []
    for picture, label in render(spec, 0, samples):
        large = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_LINEAR)
        files.append((cv2.imencode(".png", cv2.cvtColor(large, cv2.COLOR_GRAY2BGR))[1].tobytes(), label.lower()))
    return files


def checkpoint(recipe: Recipe, images: Picture) -> Checkpoint:
    """Return random weights that write words of some characters, with the pictures' own statistics."""
    import torch

    torch.manual_seed(0)
    net = twin("pytorch", "models.model").build(recipe.model, recipe.data, codec_of(recipe.model, recipe.data).classes)
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0  # one pass leaves the batch's own statistics
    inputs = torch.from_numpy(normalise(images, recipe.data.middle))
    with torch.no_grad():
        net.train()(inputs)
        logits = net.eval()(inputs)
        net.head.bias -= logits.mean((0, 1))
        net.head.bias[0] += 2 * logits.std((0, 1)).mean()
    tensors = twin("pytorch", "models.weights").dump(net)
    return Checkpoint(tensors=tensors, data=recipe.data, model=recipe.model, train=recipe.train, step=0)


def loop(net: Any, files: Files, codec: Codec) -> list[str]:
    """Evaluate as DTRB does and return the texts; `net` takes (N, 3, 32, 100) float32 and returns logits."""
    import torch
    from PIL import Image

    texts: list[str] = []
    for first in range(0, len(files), BATCH):
        tensors, labels = [], [label for _, label in files[first : first + BATCH]]
        for data, _ in files[first : first + BATCH]:
            picture = Image.open(io.BytesIO(data)).convert("RGB").resize((100, 32), Image.Resampling.BICUBIC)
            tensors.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255))
        with torch.no_grad():
            texts += outcome(net((torch.stack(tensors) - 0.5) / 0.5), labels, codec)
    return texts


def outcome(logits: Any, labels: list[str], codec: Codec) -> list[str]:
    """Return the texts of logits (N, T, C), and work out what DTRB reports beside them."""
    import torch

    classes = torch.tensor([number for label in labels for number in codec.encode(label)])
    lengths = torch.tensor([len(codec.encode(label)) for label in labels])
    steps = torch.full((len(labels),), logits.shape[1])
    loss = torch.nn.functional.ctc_loss(
        logits.log_softmax(2).permute(1, 0, 2), classes, steps, lengths, zero_infinity=True
    )
    texts = [text_of(row, codec.charset.symbols) for row in logits.max(2)[1]]
    likely = logits.softmax(2).max(2)[0]
    sums = [float(loss), 0.0, 0.0, 0.0]
    for label, text, row in zip(labels, texts, likely, strict=True):
        sums[1] += label == text
        sums[2] += 1 - distance(text, label) / max(len(text), len(label)) if text and label else 0
        sums[3] += float(row.cumprod(0)[-1])
    return texts


def text_of(best: Any, symbols: str) -> str:
    """Decode the likeliest classes (T,) of a sample, element by element."""
    kept = [best[i] for i in range(len(best)) if best[i] != 0 and not (i > 0 and best[i - 1] == best[i])]
    return "".join(symbols[number - 1] for number in kept)


def distance(left: str, right: str) -> int:
    """Return the edit distance, worked out in Python as NLTK does."""
    before = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        now = [i]
        for j, b in enumerate(right, start=1):
            now.append(min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (a != b)))
        before = now
    return before[-1]


def pack(path: Path, files: Files, recipe: Recipe) -> None:
    """Do what the shard stage does once, for any number of evaluations."""
    data = recipe.data
    with ShardWriter(path, (data.height, data.width, data.channels), len(files)) as writer:
        for content, label in files:
            writer.add(fit_picture(decode(content, data.channels), data), label)


def evaluate(recogniser: Any, path: Path) -> dict[str, Any]:
    """Do what the evaluate stage does."""
    with contextlib.redirect_stdout(io.StringIO()):
        return facts_of(read_all(recogniser, ShardSet.open([path]), RULES, "evaluate"), RULES.protocol, 1.0)


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """The same network as PyTorch builds it and in this project's predictors; `steps` is its logits' T."""

    recipe: Recipe
    codec: Codec
    net: Any
    whole: Any  # the predictor in float32
    half: Any  # with evaluation.amp O2
    steps: int


def rivals(images: Picture) -> Rivals:
    """Return both after a look at whether they compute the same and decode it alike."""
    predict, recipe = twin("pytorch", "models.predict"), load_recipe(RECIPE)
    import torch

    saved = checkpoint(recipe, images)
    codec, predictor = codec_of(recipe.model, recipe.data), predict.Predictor(saved, "cpu")
    half = predict.Predictor(saved, "cpu", "O2")
    net = twin("pytorch", "models.model").build(recipe.model, recipe.data, codec.classes)
    twin("pytorch", "models.weights").load_weights(net, saved.tensors, "checkpoint")
    net.eval()
    with torch.no_grad():
        logits = net(torch.from_numpy(normalise(images, recipe.data.middle)))
    if (apart := float(np.abs(logits.numpy() - predictor(images)).max())) > CLOSE:
        raise AssertionError(f"logits of the same pictures are {apart:.1e} apart, expected at most {CLOSE}")
    if outcome(logits, ["a"] * len(images), codec) != codec.decode(logits.numpy())[0]:
        raise AssertionError("the same logits are not decoded alike")
    return Rivals(recipe=recipe, codec=codec, net=net, whole=predictor, half=half, steps=logits.shape[1])


def measure(samples: int, threads: int) -> dict[str, float]:
    """Let all take turns over the parts of the samples; milliseconds of processor time per picture by contender."""
    twin("pytorch", "models.predict")  # sets what PyTorch reads when it is imported
    import torch

    torch.set_num_threads(threads)
    files = words(samples)
    data = load_recipe(RECIPE).data
    both = rivals(np.stack([fit_picture(decode(content, data.channels), data) for content, _ in files[:BATCH]]))
    silent = Silent(both.codec, both.steps)
    nothing = torch.zeros(BATCH, both.steps, both.codec.classes)
    work: dict[str, Callable[[Files, Path], object]] = {
        "shard": lambda part, path: pack(path, part, both.recipe),
        "evaluate": lambda _, path: evaluate(both.whole, path),
        "evaluate with amp O2": lambda _, path: evaluate(both.half, path),
        "loop": lambda part, _: loop(both.net, part, both.codec),
        "evaluate without network": lambda _, path: evaluate(silent, path),
        "loop without network": lambda part, _: loop(lambda images: nothing[: len(images)], part, both.codec),
    }
    times = dict.fromkeys(work, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(PARTS):
            for name, run in work.items():
                before = time.process_time()
                run(files[number::PARTS], Path(folder) / f"{number}.lmdb")
                times[name] += 1000 * (time.process_time() - before) / samples
            print(f"part {number + 1} of {PARTS}", file=sys.stderr, flush=True)
    return times


def table(samples: int, times: dict[str, float]) -> list[Row]:
    """Make the table's lines."""
    rows, label = [], f"crnn_r34, {samples:,} pictures"
    for ending, names, goal in (("", ("evaluate", "evaluate with amp O2"), GOAL),
                                (" without network", ("evaluate without network",), 0.0)):  # fmt: skip
        peer = times[f"loop{ending}"]
        rows.append(row(f"{label}{ending}, {PEER}", peer))
        for name in names:
            rows.append(row(f"{label}, {name}", times[name], peer, goal))
            rows.append(row(f"{label}, shard and {name}", times["shard"] + times[name], peer))
    return rows


def row(name: str, value: float, peer: float = 0.0, goal: float = 0.0) -> Row:
    """Make one line; the peer's time is 0 on its own."""
    line: Row = {"name": name, "value": round(value, 3), "unit": "ms CPU/picture", "peer": None, "ratio": None}
    if peer:
        line |= {"peer": PEER, "ratio": round(peer / value, 2)}
    return line | {"goal": goal or None, "met": peer / value >= goal if goal else None}


def main() -> None:
    """Measure, and print the table or its rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    parser.add_argument("--samples", type=from_one, default=SAMPLES)
    parser.add_argument("--threads", type=from_one, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = table(options.samples, measure(options.samples, options.threads))
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for line in rows:
        ratio = "" if line["ratio"] is None else f"  {line['ratio']} of the loop's speed"
        goal = "" if line["goal"] is None else f", goal {line['goal']}, met {line['met']}"
        print(f"{line['name']:<62} {line['value']:>8} {line['unit']}{ratio}{goal}")


if __name__ == "__main__":
    main()
