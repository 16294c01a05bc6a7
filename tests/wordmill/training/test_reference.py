import dataclasses
from pathlib import Path

import numpy as np

from tests.wordmill.training.tiny import make_job, picture, write_set
from wordmill.training.reference import write_reference


def test_reference_holds_the_first_pictures_and_what_the_model_makes_of_them(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job = dataclasses.replace(job, val_sets=(write_set(tmp_path / "s", 70),))
    write_reference(job, lambda images: images.reshape(len(images), 25, -1)[:, :, :37].astype(np.float32))
    with np.load(tmp_path / "reference.npz", allow_pickle=False) as reference:
        images, logits = reference["images"], reference["logits"]
    assert images.shape == (64, 32, 100, 1)
    assert np.array_equal(images[9], picture(1))
    assert logits.shape == (64, 25, 37)
    assert not list(tmp_path.glob("*part*"))
