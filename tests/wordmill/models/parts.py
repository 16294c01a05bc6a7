"""Arrays of several kinds in one file, by names that begin with their kind."""

from wordmill.models.checkpoint import Tensors


def part_of(arrays: Tensors, part: str) -> Tensors:
    """Return the arrays whose names begin with `part/`, by the rest of their names."""
    return {name.removeprefix(f"{part}/"): a for name, a in arrays.items() if name.startswith(f"{part}/")}
