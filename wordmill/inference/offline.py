"""An OM file's accuracy on an Ascend chip, offline: samples to .bin files, ais_bench's command, results to a score.

The verb `pack` needs the data, `command` the chip, `score` neither: the folder can be carried from host to host.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wordmill.inference.card import CARD, codec_of_card, prepared
from wordmill.inference.evaluation import Outcome, facts_of
from wordmill.recipe.arguments import from_nought, from_one
from wordmill.shards.loader import ordered_batches
from wordmill.shards.sets import ShardSet, fetch_index, open_sets
from wordmill.store.files import write_atomically
from wordmill.store.progress import Progress
from wordmill.store.storage import Store
from wordmill.text.decoding import Logits
from wordmill.text.protocols import PROTOCOLS

INPUTS, RESULTS, LABELS = "inputs", "result", "labels.jsonl"  # in the folder
LOGITS_NUMBER = 0  # which of the file's outputs they are; ais_bench puts it behind a sample's name
BATCH = 256  # samples that are in memory at once
ENDINGS = (".bin", ".npy", ".txt")  # ais_bench's --outfmt, in lower case


def pack_samples(samples: list[str], card_path: Path, folder: Path) -> int:
    """Write each sample as the file takes it, and a list of names and labels; return how many there are.

    samples: shard files, or one reference `shard/<key>` of a data set in the store.
    """
    card, shards = json.loads(card_path.read_text(encoding="utf-8")), open_samples(samples)
    data = card["recipe"]["data"]
    shape = (data["height"], data["width"], data["channels"])
    if shards.shape != shape:
        raise ValueError(f"{samples[0]}: pictures are {shards.shape}, {card_path} was made for {shape}")
    (folder / INPUTS).mkdir(parents=True)
    progress = Progress("pack", shards.samples, "images")
    lines: list[str] = []
    for batch in ordered_batches(shards, BATCH):
        for array, label in zip(prepared(batch.images, card), batch.labels, strict=True):
            name = f"{len(lines):08d}"  # no dot: ais_bench takes what stands before the first one
            (folder / INPUTS / f"{name}.bin").write_bytes(array.tobytes())
            lines.append(json.dumps({"name": name, "label": label}, ensure_ascii=False))
        progress.update(len(lines))
    write_atomically(folder / CARD, json.dumps(card, indent=1, ensure_ascii=False))
    write_atomically(folder / LABELS, "".join(f"{line}\n" for line in lines))  # last: the folder is whole now
    return len(lines)


def open_samples(samples: list[str]) -> ShardSet:
    """Open shard files, or the shards of a data set that its manifest's reference names."""
    if not re.fullmatch(r"shard/[0-9a-f]{32}", samples[0]):
        return ShardSet.open(samples)
    return open_sets([fetch_index(Store.from_environment(), samples[0])])


def command(folder: Path, model: Path, batch: int, device: int, gears: bool) -> list[str]:
    """Return the command that runs an OM file of one batch size, or with gears, over the packed samples.

    ais_bench fills up the last batch with copies of its first file and writes nothing for these.
    """
    gear = [f"--dymBatch={batch}"] if gears else []
    # The batch is axis 0 of our logits (N, T, C); where an exporter puts T first it is 1.
    return ["python3", "-m", "ais_bench", f"--model={model}", f"--input={folder / INPUTS}", f"--output={folder}",
            f"--output_dirname={RESULTS}", "--outfmt=BIN", f"--device={device}", f"--batchsize={batch}", *gear,
            "--output_batchsize_axis=0"]  # fmt: skip


def run_ais_bench(line: list[str], folder: Path) -> None:
    """Run ais_bench here; RuntimeError where it fails or writes nothing."""
    results = folder / RESULTS
    if results.exists():
        raise ValueError(f"{results}: there are results of an earlier run: remove them first")
    if subprocess.run([sys.executable, *line[1:]], check=False).returncode:
        raise RuntimeError(f"{shlex.join(line)} failed: is ais_bench installed and CANN's set_env.sh sourced?")
    if not results.is_dir():
        raise RuntimeError(f"{shlex.join(line)} ended well but wrote no {results}")


def score_results(folder: Path, results: Path, protocol: str) -> dict[str, Any]:
    """Read ais_bench's results for the packed samples, compare them with the labels and return the accuracy.

    Only results of listed samples count, whatever else was written. Every prediction goes to predictions.jsonl.
    """
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    listed = [json.loads(line) for line in (folder / LABELS).open(encoding="utf-8", newline="\n")]
    codec = codec_of_card(card)
    outcome = Outcome()
    for start in range(0, len(listed), BATCH):
        batch = listed[start : start + BATCH]
        logits = np.stack([read_result(results, entry["name"], card) for entry in batch])
        for entry, text, confidence in zip(batch, *codec.decode(logits), strict=True):
            outcome.add(entry["label"], text, float(confidence), protocol, codec.charset)
    outcome.write(folder / "predictions.jsonl")
    return facts_of(outcome, protocol, codec.temperature)


def read_result(results: Path, name: str, card: dict[str, Any]) -> Logits:
    """Return the logits (T, C) that were written for a sample, in fp32 or fp16; ValueError for none or another size."""
    _, steps, classes = card["output"]["shape"]
    stem = f"{name}_{LOGITS_NUMBER}"
    path = next((results / f"{stem}{ending}" for ending in ENDINGS if (results / f"{stem}{ending}").is_file()), None)
    if path is None:
        raise ValueError(f"{results / stem}: no result with one of {', '.join(ENDINGS)}: did ais_bench run to its end?")
    values = _values(path, steps * classes)
    if values.size != steps * classes or not np.isfinite(values).all():
        raise ValueError(f"{path}: expected {steps} x {classes} finite numbers, found {values.size}, of which "
                         f"{np.count_nonzero(np.isfinite(values))} are finite: look at --output_batchsize_axis, "
                         "and at the card, whether it is the model's")  # fmt: skip
    return np.asarray(values.reshape(steps, classes), dtype=np.float32)


def _values(path: Path, expected: int) -> np.ndarray[Any, Any]:
    """Return the numbers of a result file; a .bin file says by its size whether they are fp16 or fp32."""
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if path.suffix == ".txt":
        return np.array(path.read_text(encoding="utf-8").split(), dtype=np.float32)
    content = path.read_bytes()
    kind = np.float16 if len(content) == 2 * expected else np.float32
    return np.frombuffer(content[: len(content) // kind().itemsize * kind().itemsize], dtype=kind)


def carry_out(options: argparse.Namespace) -> Iterator[str]:
    """Do what the command line asks and give what there is to say about it."""
    folder: Path = options.folder
    if options.verb == "pack":
        yield f"{folder}: {pack_samples(options.samples, options.card, folder)} samples"
    elif options.verb == "command":
        line = command(folder, options.model, options.batch, options.device, options.gears)
        yield shlex.join(line)
        if options.run:
            run_ais_bench(line, folder)
    else:
        facts = score_results(folder, options.results or folder / RESULTS, options.protocol)
        write_atomically(folder / "score.json", json.dumps(facts, indent=1))
        left_out = "".join(f"; left out: {count} {reason}" for reason, count in facts["left_out"].items())
        yield (f"{100 * facts['accuracy']:.2f} % word accuracy, {facts['correct']} of {facts['total']} by protocol "
               f"{facts['protocol']} (95 %: {100 * facts['low']:.2f} to {100 * facts['high']:.2f}), "
               f"1-NED {facts['ned']:.4f}{left_out}")  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run one step of the offline route; what is wrong ends in one line and code 1."""
    parser = argparse.ArgumentParser(prog="python -m wordmill.inference.offline", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="write samples as .bin files, and a list of their labels")
    packing.add_argument("folder", type=Path, help="a new folder for them")
    packing.add_argument("samples", nargs="+", help="shard files, or shard/<key> in the store")
    packing.add_argument("--card", type=Path, required=True, help="card.json beside the exported file")
    running = verbs.add_parser("command", help="print ais_bench's command, or run it")
    running.add_argument("folder", type=Path, help="what pack has written")
    running.add_argument("--model", type=Path, required=True, help="the .om file")
    running.add_argument("--batch", type=from_one, required=True, help="the file's batch size")
    running.add_argument("--gears", action="store_true", help="the file has gears, of which --batch is one")
    running.add_argument("--device", type=from_nought, default=0, help="number of the chip")
    running.add_argument("--run", action="store_true", help="run it here")
    scoring = verbs.add_parser("score", help="compare the results with the labels")
    scoring.add_argument("folder", type=Path, help="what pack has written")
    scoring.add_argument("--results", type=Path, help=f"where the results are, if not in {RESULTS} of the folder")
    scoring.add_argument("--protocol", choices=PROTOCOLS, required=True, help="the recipe's evaluation.protocol")
    try:
        for line in carry_out(parser.parse_args(arguments)):
            print(line, flush=True)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
