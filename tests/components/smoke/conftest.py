import pytest

from components.smoke import stage


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure each speed for an instant."""
    monkeypatch.setattr(stage, "MEASURE_S", 0.01)
