import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.wordmill.models.ms import COMPACT, DATA, TRAIN, cell_by_cell
from wordmill.inference.mindir import MindirRuntime
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ms.export import export_mindir
from wordmill.models.ms.model import build
from wordmill.models.ms.predict import Predictor
from wordmill.models.ms.weights import dump
from wordmill.pictures.image import normalise
from wordmill.recipe.sections import Data, Model

RARE = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=2, decoder_hidden=16)
SEQ2SEQ = Model(name="seq2seq", backbone="compact", neck="bilstm_linked", hidden=16, layers=1, decoder_hidden=16)
CLASSES = {"crnn": 37, "rare": 38, "seq2seq": 38}
NARROW = dataclasses.replace(DATA[1], width=16)  # seq2seq's graph grows with the width


def make_checkpoint(model: Model = COMPACT, data: Data = DATA[1]) -> Checkpoint:
    rng = np.random.default_rng(4)
    tensors = dump(build(model, data, CLASSES[model.name]))
    for name in tensors:
        if ".running_" in name:  # fresh ones are 0 and 1, which an export might lose unnoticed
            tensors[name] = rng.uniform(0.5, 1.5, tensors[name].shape).astype(np.float32)
    return Checkpoint(tensors=tensors, data=data, model=model, train=TRAIN, step=0)


def pictures(count: int, width: int = 100) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 32, width, 1), dtype=np.uint8)


def read(predictor: Predictor, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the recogniser's own logits."""
    with cell_by_cell():
        return predictor(images)


@pytest.mark.parametrize("model", [COMPACT, RARE, SEQ2SEQ])
def test_a_mindir_file_gives_the_recognisers_logits_for_any_batch(model: Model, tmp_path: Path) -> None:
    checkpoint, path = make_checkpoint(model, NARROW), tmp_path / "model.mindir"
    export_mindir(checkpoint, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.mindir"]
    runtime, predictor = MindirRuntime(path), Predictor(checkpoint, "cpu")
    for batch in (1, 7):
        images = pictures(batch, NARROW.width)
        assert np.abs(runtime(normalise(images, 127.5)) - read(predictor, images)).max() < 1e-5


def test_pictures_of_several_views_are_read_in_any_batch(tmp_path: Path) -> None:
    data = dataclasses.replace(DATA[1], height=128, width=512, channels=3)
    model = dataclasses.replace(RARE, backbone="views_cnn")
    tensors = dump(build(model, data, CLASSES["rare"]))
    export_mindir(Checkpoint(tensors=tensors, data=data, model=model, train=TRAIN, step=0), tmp_path / "model.mindir")
    runtime = MindirRuntime(tmp_path / "model.mindir")
    images = np.random.default_rng(1).uniform(-1, 1, (2, 3, 128, 512)).astype(np.float32)
    together = runtime(images[:1]), runtime(images)  # of two sizes: MindSpore may hold on to the first one's
    assert [len(logits) for logits in together] == [1, 2]
    assert np.abs(together[1][:1] - together[0]).max() < 1e-5


def test_a_static_file_takes_its_own_batch_alone(tmp_path: Path) -> None:
    checkpoint, path = make_checkpoint(), tmp_path / "model.mindir"
    export_mindir(checkpoint, path, batch=4)
    runtime, images = MindirRuntime(path), pictures(4)
    assert np.abs(runtime(normalise(images, 127.5)) - read(Predictor(checkpoint, "cpu"), images)).max() < 1e-5
    with pytest.raises((RuntimeError, ValueError)):
        runtime(normalise(images[:3], 127.5))


def test_a_file_may_lie_anywhere_whatever_it_and_the_folder_of_temporary_files_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "My Wörd Projects (2)+~" / "model #1.mindir"
    path.parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path.parent))
    export_mindir(make_checkpoint(), path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert MindirRuntime(path)(normalise(pictures(2), 127.5)).shape == (2, 25, 37)


def test_a_ctc_recogniser_takes_pictures_of_any_width(tmp_path: Path) -> None:
    checkpoint, path = make_checkpoint(), tmp_path / "model.mindir"
    export_mindir(checkpoint, path, any_width=True)
    runtime = MindirRuntime(path)
    assert np.abs(runtime(normalise(pictures(3), 127.5)) - read(Predictor(checkpoint, "cpu"), pictures(3))).max() < 1e-5
    wide = pictures(2, width=164)
    broad = dataclasses.replace(checkpoint, data=dataclasses.replace(DATA[1], width=164))
    logits = runtime(normalise(wide, 127.5))
    assert logits.shape == (2, 41, 37)
    assert np.abs(logits - read(Predictor(broad, "cpu"), wide)).max() < 1e-5


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.mindir"
    export_mindir(make_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"model\.mindir: not a readable MindIR file"):
        MindirRuntime(path)
