"""Memory that a test process shares with hundreds of tests after this one."""

import ctypes
import gc


def give_back() -> None:
    """Return to the system what networks took: they hold each other in circles, and malloc holds on to the rest.

    What is left lives as long as the process. MindSpore, which has garbage collected whenever it builds a graph, shall
    not look through it each time.
    """
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)
