"""What verbs print for programs: with --json one document on standard output, and everything else beside it."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from wordmill.store.files import redirected

COMMAND = "wordmill"


def is_command() -> bool:
    """Tell whether the verb was called as the installed command, whose users may have no make."""
    return Path(sys.argv[0]).stem == COMMAND


def to_type(verb: str, made: str = "", typed: str = "") -> str:
    """Return what there is to type, with the words of make or those of the command, whichever was called."""
    words = (COMMAND, verb, typed) if is_command() else ("make", verb, made)
    return " ".join(word for word in words if word)


def to_apply(overlay: str = "...") -> str:
    """Return what there is to type to apply the site's manifests with an overlay."""
    return f"make manifests OVERLAY={overlay} | kubectl apply -f -"


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --json to a verb."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON, and nothing else")


@contextmanager
def told_beside(wanted: bool) -> Iterator[None]:
    """Send what is printed meanwhile, by child processes too, to standard error where JSON is `wanted`."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    with redirected(1, 2), redirect_stdout(sys.stderr):
        yield


def print_json(document: Any) -> None:
    """Print a document."""
    print(json.dumps(document, ensure_ascii=False, indent=1))
