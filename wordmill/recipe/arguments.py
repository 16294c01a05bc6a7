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
    return _time(text, "seconds")


def minutes(text: str) -> float:
    """Return a time in minutes, more than 0, of an argument."""
    return _time(text, "minutes")


def days(text: str) -> float:
    """Return a time in days, more than 0, of an argument."""
    return _time(text, "days")


def _time(text: str, unit: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {unit}, more than 0")
    return found


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least} on")
    return int(text)
