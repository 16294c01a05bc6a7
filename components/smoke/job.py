"""What a probe is told to run."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """Files of one format to run, by their paths, and what is known of them."""

    format: str
    files: list[str]
    card: dict[str, Any]
    reference: str  # path of the images
    measure_s: float  # how long each speed is measured

    @property
    def outputs(self) -> list[str]:
        """Return the names of the outputs in their order."""
        return [output["name"] for output in self.card["outputs"]]
