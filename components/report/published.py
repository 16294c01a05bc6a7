"""What others published for the recogniser of a recipe, from published.yaml."""

from dataclasses import dataclass
from pathlib import Path

from wordmill.recipe.parsing import read_yaml

ACCURACIES = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, kw_only=True)
class Published:
    """Word accuracies of one recogniser as its makers printed them."""

    by: str
    source: str  # address of the page
    protocol: str  # how words were compared
    accuracy: dict[str, float]  # benchmark -> per cent


def published(recipe: str) -> Published | None:
    """Return what is published for the recogniser of this recipe, None if there is nothing."""
    document = read_yaml(ACCURACIES)
    return Published(**document[recipe]) if recipe in document else None
