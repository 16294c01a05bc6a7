"""Numbers of a command line, refused by what was found and what was expected."""

import argparse


def from_nought(text: str) -> int:
    """Return a whole number from 0 on, of an argument."""
    return _whole(text, 0)


def from_one(text: str) -> int:
    """Return a whole number from 1 on, of an argument."""
    return _whole(text, 1)


def seconds(text: str) -> float:
    """Return a time in s, more than 0, of an argument."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds, more than 0")
    return found


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least} on")
    return int(text)
