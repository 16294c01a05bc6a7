from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def _shallow() -> Iterator[None]:
    """Have a module's networks the backbone of two layers."""
    from tests.wordmill.training.ms.shallow import Shallow  # with MindSpore, which its modules import first
    from wordmill.models.ms import backbones

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "Compact", Shallow)
        yield
