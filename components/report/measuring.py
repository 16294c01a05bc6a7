"""A recogniser in any of its files measured on one data set, without a run of a pipeline: counts and the page."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.report.gather import gather_run
from components.report.page import collect_extras, report_html
from components.report.summary import summarise
from wordmill.inference.evaluation import facts_of, picture_document, read_all
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.pictures.image import Picture
from wordmill.recipe.sections import Evaluation
from wordmill.shards.sets import open_dataset
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.files import write_atomically
from wordmill.store.stages import StageResult, find_or_make, run_stage
from wordmill.store.storage import Store, hash_file
from wordmill.text.decoding import Reading

CONFUSIONS = 10  # shown in the terminal; the page has more


class Greedy:
    """What `read_all` reads with: a recogniser that takes the likeliest class at each step."""

    def __init__(self, recogniser: TextRecogniser) -> None:
        self.recogniser, self.codec = recogniser, recogniser.codec

    def read(self, images: Picture, beams: int) -> Reading:
        """Return texts and confidences of images (N, H, W, C) uint8; only the graph of training searches by beams."""
        if beams != 1:
            raise ValueError(f"{beams} beams: a file is read by one")
        return self.recogniser.read(images)


def measure_file(
    recogniser: TextRecogniser, model: Path, protocol: str, shards: Path, name: str, run_tag: str, output: Path
) -> str:
    """Read a data set of the shard stage's manifest, record it as the run's measurement, return its reference.

    model: the file or folder that was opened, which the record names by its digest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        combined, rules = read_manifest(shards), Evaluation(protocol=protocol)  # type: ignore[arg-type]
        content = combined.facts["contents"][name]
        digests = {path.name: hash_file(path) for path in [model, *model.rglob("*")] if path.is_file()}
        told = {"files": digests, "content": content, "evaluation": asdict(rules), "run_tag": run_tag}

        def make(folder: Path) -> StageResult:
            outcome = read_all(Greedy(recogniser), open_dataset(store, combined, name), rules, f"evaluate {name}")
            files = {"predictions.jsonl": folder / "predictions.jsonl", "mistakes.json": folder / "mistakes.json"}
            outcome.write(files["predictions.jsonl"])
            pictures = [picture_document(mistake) for mistake in outcome.worst]
            write_atomically(files["mistakes.json"], json.dumps(pictures, ensure_ascii=False))
            facts = facts_of(outcome, protocol, recogniser.codec.temperature)
            return StageResult(files=files, facts={**facts, "content": content})

        return find_or_make(store, "evaluate", name, told, make)

    return run_stage("evaluate", name, run_tag, str(output), work)


def write_page(store: Store, model: str, run_tag: str, page: Path) -> dict[str, Any]:
    """Write the report page of what a run's tag has recorded, and return its summary; `model` stands as its title."""
    gathered = gather_run(store, run_tag)
    summary = summarise(gathered, model, run_tag)
    write_atomically(page, report_html(summary, collect_extras(store, gathered)))
    return summary


def measured_text(summary: dict[str, Any]) -> str:
    """Return counts, interval, calibration and confusions as text."""
    lines = [f"{row['name']}  {row['correct']:,} of {row['total']:,} read right, {100 * row['accuracy']:.2f} % "
             f"(95 %: {100 * row['low']:.2f} to {100 * row['high']:.2f}) by protocol {row['protocol']}, "
             f"1-NED {row['ned']:.4f}" for row in summary["benchmarks"]]  # fmt: skip
    for row in summary["benchmarks"]:
        lines += [f"  {count:,} left out: {reason}" for reason, count in row["left_out"].items()]
        lines += [f"  {count:,} changed: {reason}" for reason, count in row["changed"].items()]
    reading = summary["reading"]
    before = f", {100 * reading['uncalibrated']:.2f} without its temperature" if reading["temperature"] != 1 else ""
    lines.append(f"  confidence off by {100 * reading['calibration']['ece']:.2f} points on average{before}")
    if reading["confusion"]:
        slips = [f"{row['truth'] or 'nothing'} > {row['read'] or 'nothing'} {row['count']:,}"
                 for row in reading["confusion"][:CONFUSIONS]]  # fmt: skip
        lines.append(f"  of {reading['confused']:,} confused characters: {', '.join(slips)}")
    return "\n".join(lines)
