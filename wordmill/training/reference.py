"""What exported files are compared with: validation pictures and the trained model's logits."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from wordmill.shards.loader import ordered_batches
from wordmill.shards.sets import open_sets
from wordmill.store.files import atomic_file, write_arrays
from wordmill.training.job import Job
from wordmill.training.trainer import Logits

REFERENCE_IMAGES = 64  # how many validation pictures an exported file is compared on


def write_reference(job: Job, predict: Callable[[npt.NDArray[np.uint8]], Logits]) -> None:
    """Write reference.npz: the first validation images (N, H, W, C) uint8 and the trained model's logits (N, T, C)."""
    images = next(ordered_batches(open_sets(job.val_sets), REFERENCE_IMAGES)).images
    with atomic_file(job.folder / "reference.npz") as temporary, temporary.open("wb") as file:
        write_arrays(file, {"images": images, "logits": predict(images).astype(np.float32)})
