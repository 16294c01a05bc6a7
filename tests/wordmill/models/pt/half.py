"""Half precision on processors without a unit for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wordmill.models.pt.precision import choose_precision


@contextmanager
def half_kernels(dtype: torch.dtype) -> Iterator[None]:
    """Let oneDNN compute in a type where recognisers do so on this processor, else PyTorch's own slow kernels.

    oneDNN raises where it has no kernel; which layer computes in which type does not depend on who computes it.
    """
    before, chosen = torch.backends.mkldnn.enabled, choose_precision("O2", "cpu")[0]
    torch.backends.mkldnn.enabled = chosen == dtype
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


@contextmanager
def bfloat16() -> Iterator[None]:
    """Compute under autocast to bfloat16, by `half_kernels`."""
    with half_kernels(torch.bfloat16), torch.autocast("cpu", dtype=torch.bfloat16):
        yield
