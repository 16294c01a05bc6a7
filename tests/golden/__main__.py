from pathlib import Path

from pipelines.cli import FOLDER, main

for recipe in sorted(path.stem for path in (FOLDER / "recipes").glob("*.yaml")):
    try:
        main(["compile", recipe, "-o", str(Path(__file__).with_name(f"{recipe}.yaml"))])
    except SystemExit as end:
        if end.code:
            raise
