"""An attention recogniser as two ONNX files, an encoder and a decoder's step, between which a beam search runs."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.inference.card import codec_of_card
from wordmill.inference.onnx_runtime import onnxruntime
from wordmill.pictures.image import Picture, normalise
from wordmill.text.beam import Floats, Integers, attention_beam_search
from wordmill.text.decoding import AttentionCodec, Reading

Arrays = list[npt.NDArray[np.float32]]


class PairReader:
    """The two files that a card's `beam` names, in ONNX Runtime on the processor."""

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        codec = codec_of_card(card)
        if "beam" not in card or not isinstance(codec, AttentionCodec):
            raise ValueError(f"{folder}: the card describes no encoder and decoder: export them with export.beam")
        self.codec, self.parts = codec, card["beam"]
        self.steps, self.middle = card["output"]["shape"][1], card["preprocessing"]["middle"]
        files = (str(folder / self.parts[part]["file"]["name"]) for part in ("encoder", "step"))
        self.encoder, self.step = (onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
                                   for file in files)  # fmt: skip

    def read(self, pictures: Picture, beams: int) -> Reading:
        """Return texts and confidences of pictures (N, H, W, C) uint8 of the recipe's size."""
        if not len(pictures):  # which ends the runtime's process
            return [], np.empty(0, dtype=np.float32)
        return attention_beam_search(self._writer(pictures, beams), len(pictures), self.codec, beams, self.steps)

    def read_greedily(self, pictures: Picture) -> Reading:
        """Return texts and confidences of pictures (N, H, W, C) uint8 by the likeliest class of each step.

        As the recogniser's one graph reads; a beam search with one beam does not, it weighs where a text may end.
        """
        if not len(pictures):
            return [], np.empty(0, dtype=np.float32)
        writer, everyone = self._writer(pictures, beams=1), np.arange(len(pictures))
        tokens, rows = np.full(len(pictures), AttentionCodec.GO), []
        for _ in range(self.steps):
            rows.append(writer(everyone, tokens))
            tokens = rows[-1].argmax(axis=1)
        return self.codec.decode(np.stack(rows, axis=1).astype(np.float32))

    def _writer(self, pictures: Picture, beams: int) -> "_Writer":
        """Return the decoder with so many hypotheses of each picture."""
        (given,), found = self.parts["encoder"]["inputs"], self.parts["encoder"]["outputs"]
        encoded = self.encoder.run(found, {given: normalise(pictures, self.middle)})
        return _Writer(self.step, self.parts["step"], [np.repeat(part, beams, axis=0) for part in encoded])


class _Writer:
    """The decoder with the state of every hypothesis of a beam search."""

    def __init__(self, session: onnxruntime.InferenceSession, ports: dict[str, list[str]], parts: Arrays) -> None:
        self.session, self.ports = session, ports
        *self.memory, self.hidden = parts

    def __call__(self, parents: Integers, tokens: Integers) -> Floats:
        """Go on with hypotheses `parents` (R,), each by its class of `tokens` (R,): log-probabilities (R, classes)."""
        given = dict(zip(self.ports["inputs"], [tokens, self.hidden[parents], *self.memory], strict=True))
        likely, self.hidden = self.session.run(self.ports["outputs"], given)
        return np.asarray(likely, dtype=np.float64)
