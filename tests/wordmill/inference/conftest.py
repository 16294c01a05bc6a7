"""What tests of packaged recognisers share: pictures, and the maker of finished runs, with servers of its own."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from tests.wordmill.inference.maker import DATA, Maker
from wordmill.pictures.image import Picture
from wordmill.store.storage import Store

SIZES = [(32, 100), (20, 90), (80, 30), (64, 64), (31, 200), (32, 100)]  # (H, W): the third is turned


@pytest.fixture
def images() -> list[Picture]:
    random = np.random.default_rng(7)
    coarse = [random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8) for height, width in SIZES]
    return [
        np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))
        for image, (height, width) in zip(coarse, SIZES, strict=True)
    ]


@pytest.fixture
def maker(store: Store, tmp_path: Path, mlflow_uri: str) -> Callable[..., Maker]:  # noqa: F811
    return lambda model, data=DATA: Maker(store, tmp_path, model, data)
