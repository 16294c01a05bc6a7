"""How many steps a label takes, worked out for each by itself: what indices and targets are held to."""

from itertools import pairwise

from wordmill.text.decoding import Codec, CtcCodec


def steps_needed(codec: Codec, text: str) -> int:
    """Return the label's length and STOP, or to CTC a blank between equal neighbours."""
    row = codec.encode(text)
    return len(row) + (sum(a == b for a, b in pairwise(row)) if isinstance(codec, CtcCodec) else 1)
