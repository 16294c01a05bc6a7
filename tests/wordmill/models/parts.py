"""What both processes of twins do: arrays of several kinds in one file, and decoders of few steps."""

from typing import Any

from wordmill.models.checkpoint import Tensors

STEPS = 7


def part_of(arrays: Tensors, part: str) -> Tensors:
    """Return the arrays whose names begin with `part/`, by the rest of their names."""
    return {name.removeprefix(f"{part}/"): a for name, a in arrays.items() if name.startswith(f"{part}/")}


def shorten(net: Any) -> Any:
    """Leave a decoder few of its steps, which are all alike; MindSpore takes each by itself. Return the recogniser."""
    if hasattr(net, "decoder"):
        net.decoder.steps = STEPS
    return net
