"""The export stage: writes the trained recogniser in one file format, with a card that says how it is used."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from components import keys
from components.export.converter import LOG
from components.export.formats import ENCODER, STEP, NotMadeError, Source, Written, write_int8, write_mindir, write_onnx
from components.export.lite import optimisation, write_lite
from components.export.om import soc_version, write_om
from wordmill.inference.card import CARD, REFERENCE, describe_file
from wordmill.inference.trained import load_trained
from wordmill.models.architectures import LEAST_WIDTHS
from wordmill.recipe import frameworks
from wordmill.recipe.parsing import from_json, nearest, to_json
from wordmill.recipe.sections import Export
from wordmill.shards.loader import Batch, ordered_batches
from wordmill.shards.sets import fetch_index, open_sets
from wordmill.store.artifacts import Manifest, git_commit, read_manifest
from wordmill.store.files import write_arrays, write_atomically
from wordmill.store.stages import StageResult, find_or_make, run_stage
from wordmill.store.storage import Store, file_facts
from wordmill.text.decoding import codec_of

WRITERS: dict[str, Callable[[Source], Written]] = {
    "onnx": write_onnx, "onnx_int8": partial(write_int8, "onnx_int8"),
    "onnx_int8_qoperator": partial(write_int8, "onnx_int8_qoperator"),
    "mindir": write_mindir, "om": write_om, "lite": write_lite,
}  # fmt: skip
# The recipe's keys that a format's files depend on.
KEYS = {
    "onnx": ("opset", "batches", "any_width", "beam"),
    "onnx_int8": ("opset", "int8_loss"),
    "onnx_int8_qoperator": ("opset", "int8_loss"),
    "mindir": ("batches", "any_width"),
    "om": ("opset", "batches", "precision_mode", "output_type", "aipp", "gears"),
    "lite": ("opset", "batches", "lite_device"),
}
BEAMS, PROVEN = 3, 16  # of the beam search that an encoder and a decoder are tried by, and on how many pictures
MEASURED = 1024  # validation samples that a format's loss of accuracy is measured on


def run(*, export_format: str, export: str, model: str, run_tag: str, output: str) -> str:
    """Write the trained recogniser in one file format.

    export_format: one of WRITERS. export: JSON of the recipe's export section. model: file with
    the manifest of train. output: file for this stage's manifest. om needs CANN's atc and the variable
    WORDMILL_SOC_VERSION, such as Ascend910B3; lite needs MindSpore Lite's converter_lite. What export.optional names
    and cannot be made here ends well, with a manifest that says why.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        if export_format not in WRITERS:
            raise ValueError(f"export format '{export_format}': {nearest(export_format, list(WRITERS))}")
        settings, trained = from_json(Export, export), read_manifest(model)
        try:
            return make_format(store, export_format, settings, trained)
        except NotMadeError as error:
            if export_format not in settings.optional:
                raise
            reason = str(error).partition("\n")[0]
        print(f"export {export_format}: not made: {reason}", flush=True)
        facts = {"format": export_format, "made": False, "reason": reason}
        inputs = {"model": trained.reference, "not_made": reason}  # so that it is tried again where it can be made
        return find_or_make(store, "export", export_format, inputs, lambda folder: StageResult(files={}, facts=facts))

    return run_stage("export", export_format, run_tag, output, work)


def make_format(store: Store, export_format: str, settings: Export, trained: Manifest) -> tuple[Manifest, bool]:
    """Return the manifest of a format's files, and whether they were there already."""
    chosen = {key: value for key, value in dataclasses.asdict(settings).items() if key in KEYS[export_format]}
    inputs = {"model": trained.reference, **chosen}
    if export_format == "om":
        inputs["soc_version"] = soc_version()
    if export_format == "lite":
        inputs["optimise"] = optimisation(settings.lite_device == "ascend")

    def make(folder: Path) -> StageResult:
        saved = load_trained(store, trained)
        with np.load(store.fetch(trained.object(REFERENCE)), allow_pickle=False) as arrays:
            reference = {"images": arrays["images"], "logits": arrays["logits"]}
        source = Source(settings=settings, saved=saved, pictures=reference["images"], folder=folder,
                        validation=lambda: validation(store, trained))  # fmt: skip
        try:
            written = WRITERS[export_format](source)
        except NotMadeError as error:
            raise NotMadeError(f"{error}{keep_log(folder, store, export_format)}") from None
        return describe_files(export_format, written, source, trained, reference["logits"])

    return find_or_make(store, "export", export_format, inputs, make, keys.of_export(export_format))


def describe_files(
    export_format: str, written: Written, source: Source, trained: Manifest, logits: np.ndarray[Any, Any]
) -> StageResult:
    """Put the card and the reference beside a format's files and return all of them with the stage's facts."""
    saved, folder = source.saved, source.folder
    package = "mindspore" if export_format == "mindir" else "torch"
    version = f"{package} {metadata.version(package)}"
    codec = codec_of(saved.model, saved.data, saved.temperature)
    texts, confidences = codec.decode(logits)
    proven = {"images": source.pictures, "logits": logits, "texts": np.array(texts), "confidences": confidences}
    with (folder / REFERENCE).open("wb") as file:
        write_arrays(file, proven)
    named = {batch: file_facts(path) for batch, path in written.models.items()}
    card = {
        "format": export_format, "precision": written.precision, "file": next(iter(named.values())),
        "files": {export_format: [{**entry, "batch": batch} for batch, entry in named.items()]},
        **describe_file(saved.data, saved.model, codec.charset, logits.shape[1], decoded=written.decoded,
                        raw=written.raw, temperature=saved.temperature,
                        least_width=LEAST_WIDTHS[saved.model.backbone] if written.any_width else 0),
        **written.card,
        "made_by": {"git_commit": git_commit(), "manifest": trained.reference, "framework_version": version},
    }  # fmt: skip
    write_atomically(folder / CARD, json.dumps(card, indent=1, ensure_ascii=False))
    if "beam" in card:
        prove_pair(folder, card, source)
    facts = {
        "format": export_format, "made": True, "bytes": sum(entry["bytes"] for entry in named.values()),
        "precision": written.precision, "files": {batch: path.name for batch, path in written.models.items()},
        "data": to_json(saved.data), "model": to_json(saved.model), "temperature": saved.temperature,
        "framework_version": version, **written.facts,
    }  # fmt: skip
    paths = [*written.models.values(), *written.others, folder / CARD, folder / REFERENCE]
    return StageResult(files={path.name: path for path in paths}, facts=facts)


def prove_pair(folder: Path, card: dict[str, Any], source: Source) -> None:
    """Refuse an encoder and a decoder whose beam search does not read as the trained recogniser's."""
    from wordmill.inference.packaged.pair import PairReader  # ONNX Runtime, which not every format's image has

    pictures = source.pictures[:PROVEN]
    found = PairReader(folder, card).read(pictures, BEAMS)[0]
    expected = frameworks.twin("pytorch", "models.predict").Predictor(source.saved, "cpu").read(pictures, BEAMS)[0]
    equal = sum(one == other for one, other in zip(found, expected, strict=True))
    if equal < len(expected):
        raise RuntimeError(f"format onnx: a beam search with {ENCODER} and {STEP} reads {equal} of {len(expected)} "
                           "pictures as the trained recogniser does")  # fmt: skip


def keep_log(folder: Path, store: Store, export_format: str) -> str:
    """Keep the log of a converter that failed and return the line that says where it is, empty for none."""
    log = folder / LOG
    if not log.exists():
        return ""
    kept = store.cache / "logs" / f"export-{export_format}.txt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(log, kept)
    return f"\nthe whole log is {kept}"


def validation(store: Store, trained: Manifest) -> Batch:
    """Return the first samples of the recogniser's validation sets."""
    sets = open_sets([fetch_index(store, reference) for reference in trained.facts["val_sets"]])
    return next(ordered_batches(sets, MEASURED))
