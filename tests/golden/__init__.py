from pipelines.building import FOLDER
from pipelines.profiles import PROFILES

# Golden file -> the arguments of `python -m pipelines compile` that make it.
COMPILED = (
    {path.stem: (path.stem,) for path in sorted((FOLDER / "recipes").glob("*.yaml"))}
    | {f"crnn_r34.{name}": ("crnn_r34", "--hardware", name) for name in PROFILES if name != "cpu"}
    | {"crnn_r34.nightly": ("crnn_r34", "--nightly")}
)
