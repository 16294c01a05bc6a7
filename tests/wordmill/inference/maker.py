"""A finished run of a recogniser that reads, as the gate packages and registers it."""

import dataclasses
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.export.stage import make_format
from components.gate.stage import Candidate, decide
from tests.components.gate.finished_run import FinishedRun
from tests.components.train.trained import TRAIN
from wordmill.inference.package import Lineage, describe_model, place_model
from wordmill.inference.packaged.pyfunc import TextRecogniser, open_onnx
from wordmill.models.checkpoint import Checkpoint, load, save
from wordmill.models.pt.model import build
from wordmill.models.pt.predict import Predictor
from wordmill.models.pt.weights import dump
from wordmill.pictures.image import Picture, fit_picture
from wordmill.recipe.sections import Data, Export, Gate, Model
from wordmill.store import tracking
from wordmill.store.artifacts import Manifest
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store
from wordmill.text.decoding import codec_of

CRNN = Model(name="crnn", backbone="compact", neck="bilstm", hidden=16, layers=1)
RARE = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=12, decoder_hidden=16)
DATA = Data(train=("words",), val=("others",), charset="lower36", height=32, width=100, channels=3, fit="pad_grey",
            interpolation="bicubic", turn_tall=True, middle=128.0)  # fmt: skip


class Maker:
    """What the stages before the gate leave in the store, for a recogniser of fresh weights that write some text."""

    def __init__(self, store: Store, folder: Path, model: Model, data: Data = DATA) -> None:
        self.store, self.data, self.model = store, data, model
        self.recipe = f"r{uuid.uuid4().hex[:8]}"
        self.seed = FinishedRun(store=store, folder=folder / "run", run_tag=f"{self.recipe}-1")
        self.trained = self._trained()
        self.measured = [self.seed.evaluation("street", "1110", self.trained)]

    def _trained(self) -> Manifest:
        def make(folder: Path) -> StageResult:
            torch.manual_seed(11)
            tensors = dump(build(self.model, self.data, codec_of(self.model, self.data).classes))
            gains = {2: 10, 4: 2}  # of matrices and convolutions: fresh ones read nothing
            tensors = {name: values * np.float32(gains.get(values.ndim, 1)) for name, values in tensors.items()}
            state = Checkpoint(tensors=tensors, data=self.data, model=self.model, train=TRAIN, step=1, temperature=0.4)
            save(folder / "model.safetensors", state)
            images = np.zeros((2, self.data.height, self.data.width, self.data.channels), np.uint8)
            np.savez(folder / "reference.npz", images=images, logits=Predictor(state, "cpu")(images))
            return StageResult(files={path.name: path for path in sorted(folder.iterdir())}, facts=sets)

        sets = {f"{use}_sets": [self._packed(name)] for use, name in (("train", "words"), ("val", "others"))}
        inputs = {
            "symbols": codec_of(self.model, self.data).charset.symbols,
            "train": dataclasses.asdict(TRAIN),
            "start": "f00d",
        }
        return find_or_make(self.store, "train", self.model.name, inputs, make)[0]

    def _packed(self, name: str) -> str:
        facts = {"source": f"https://data.example/{name}.zip", "licence": f"{name} licence", "sha256": name * 3}
        fetched = self.seed.manifest("fetch", name, {}, facts)
        return self.seed.manifest("shard", name, {}, {"samples": 9}, inputs={"source": fetched.reference}).reference

    @property
    def checkpoint(self) -> Checkpoint:
        return load(self.store.fetch(self.trained.object("model.safetensors")))

    def exported(self) -> Manifest:
        return make_format(self.store, "onnx", Export(formats=("onnx",)), self.trained)[0]

    def lineage(self, *exported: Manifest) -> Lineage:
        run = tracking.Run(tracking.connect(), "0" * 32, "0")
        return Lineage(recipe=self.recipe, trained=self.trained, measured=self.measured, exported=list(exported),
                       run_tag=self.seed.run_tag, run=run)  # fmt: skip

    def open(self, folder: Path, *exported: Manifest) -> TextRecogniser:
        """Return the reader of this recogniser, opened from a folder of its own."""
        folder.mkdir()
        lineage = self.lineage(*exported)
        sections = place_model(self.store, lineage, folder / "model.onnx")
        card = describe_model(self.store, lineage, folder / "model.onnx", *sections)
        (folder / "card.json").write_text(json.dumps(card))
        return open_onnx(folder / "card.json")

    def decide(self, *exported: Manifest) -> dict[str, Any]:
        equal = {"format": "onnx", "made": True, "texts_equal": 2, "texts_needed": 2, "max_logit_difference": 0.0,
                 "tolerance": 1e-3}  # fmt: skip
        proven = [
            self.seed.manifest("smoke", made.name, {}, equal, inputs={"exported": made.reference}) for made in exported
        ]
        gate = Gate(floor=0.5, floors={"street": 0.5}, benchmarks=("street",))
        candidate = Candidate(recipe=self.recipe, trained=self.trained, measured=self.measured, proven=proven,
                              rivals={}, run_tag=self.seed.run_tag)  # fmt: skip
        return decide(self.store, gate, candidate).facts

    def expected(self, images: list[Picture]) -> tuple[list[str], list[float]]:
        """Return what the framework that trained the recogniser reads of pictures (H, W, 3), and how surely."""
        fitted = np.stack([fit_picture(image, self.data) for image in images])
        texts, confidences = Predictor(self.checkpoint, "cpu").read(fitted)
        return texts, confidences.tolist()
