from collections.abc import Iterator

import pytest

from tests.memory import give_back


@pytest.fixture(autouse=True, scope="module")
def _memory_given_back() -> Iterator[None]:
    yield
    give_back()
