"""Compiles what the golden files hold: every recipe, and one of them for every profile and every night."""

from pathlib import Path

from pipelines.cli import main
from tests.golden import COMPILED

for name, arguments in COMPILED.items():
    try:
        main(["compile", *arguments, "-o", str(Path(__file__).with_name(f"{name}.yaml"))])
    except SystemExit as end:
        if end.code:
            raise
