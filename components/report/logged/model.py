"""A registered recogniser in Markdown, as MLflow's pages of a model and of its version show it."""

from typing import Any

from components.report.gather import Gathered
from components.report.logged.description import benchmark_table, decision
from components.report.logged.entries import used_sets
from wordmill.store.artifacts import Manifest
from wordmill.store.tracking import Run, registered_name

CHARACTERS = 4900  # of the 5000 that MLflow takes
SYMBOLS = 100  # characters of a charset that are shown
ALIASES = ("Its aliases: `champion` is in use, `candidate` was trained last, `best` has read best of all that were "
           "champion.")  # fmt: skip
NO_CHAMPION = "No version is `champion` yet, which is the alias of the one in use; `candidate` was trained last."
USE = """```python
import mlflow

recogniser = mlflow.pyfunc.load_model("models:/{name}{which}")
recogniser.predict(["word.png"])  # paths, bytes or arrays of pictures; a DataFrame of text and confidence
recogniser.metadata.metadata  # its card: input, charset, files with digests, data, lineage
```"""


def card_text(gathered: Gathered, summary: dict[str, Any], run: Run, example: str) -> str:
    """Return a version's model card: what it reads, how well, how it is used, its files, and what it was made of.

    example: the address of its input example's picture, "" for none.
    """
    train = gathered.one("train")
    if train is None:
        return ""
    name, version = registered_name(summary["recipe"]), summary["gate"]["version"]
    use = USE.format(name=name, which=f"/{version}")
    plain = decision(summary).replace("**", "")  # the list of versions shows how it begins, as it is written
    shown = f"Its input example:\n\n![input example]({example})" if example else ""
    parts = [plain, reads(train), benchmark_table(summary), use, shown, files(gathered, train), data(gathered),
             example_pictures(gathered, run)]  # fmt: skip
    text = ""
    for part in parts:
        if part and len(text) + len(part) < CHARACTERS:
            text += f"{part}\n\n"
    return text.rstrip()


def model_text(gathered: Gathered, summary: dict[str, Any], has_champion: bool) -> str:
    """Return what a registered model is, and how it is used: the champion, or this version until there is one."""
    train, name = gathered.one("train"), registered_name(summary["recipe"])
    if train is None:
        return ""
    use = USE.format(name=name, which="@champion" if has_champion else f"/{summary['gate']['version']}")
    more = f"Each version's description has its accuracies, files and data; recipe {summary['recipe']} makes them."
    return "\n\n".join((reads(train), ALIASES if has_champion else NO_CHAMPION, use, more))[:CHARACTERS]


def reads(train: Manifest) -> str:
    """Return what a recogniser takes and which characters it knows."""
    data, model, symbols = train.inputs["data"], train.inputs["model"], train.inputs["symbols"]
    colour = "RGB" if data["channels"] == 3 else "grey"
    shown = symbols if len(symbols) <= SYMBOLS else f"{symbols[:SYMBOLS]}..."
    fence = "``" if "`" in shown else "`"
    fitted = f"fitted to {data['height']} x {data['width']} pixels, {colour}"
    known = f"in {len(symbols):,} characters, charset {data['charset']}: {fence} {shown} {fence}"
    made = f"{model['name']} with {model['backbone']} backbone, {train.facts['parameters']:,} parameters"
    return f"**Reads one word of a picture**, {fitted}, {known}. {made}, {train.facts['framework']}."


def files(gathered: Gathered, train: Manifest) -> str:
    """Return the recogniser's files with their sizes and formats."""
    sizes = [("safetensors", next((one.bytes for one in train.objects if one.name == "model.safetensors"), 0))]
    sizes += [(facts["format"], facts["file_bytes"]) for facts in
              (tried.facts for tried in gathered.of("smoke")) if facts["made"]]  # fmt: skip
    rows = [f"| {kind} | {size / 1e6:.1f} |" for kind, size in sizes]
    return "\n".join(["| file | MB |", "|---|---|", *rows, "", "Their places and digests are in the card."])


def data(gathered: Gathered) -> str:
    """Return what was learnt from and validated on, with licences."""
    fetched, sets = gathered.one("fetch"), used_sets(gathered)
    entries = fetched.facts["entries"] if fetched else {}
    rows = [f"| {name} | {use} | {gathered.datasets[name].facts['samples']:,} | "
            f"{entries.get(name, {}).get('licence') or 'not told'} |"
            for use, names in (("training", sets["train"]), ("validation", sets["val"])) for name in names]  # fmt: skip
    return "\n".join(["| data | use | pictures | licence |", "|---|---|---|---|", *rows])


def example_pictures(gathered: Gathered, run: Run) -> str:
    """Return a sheet of pictures such as it reads, from the run's artifacts."""
    measured = [made.name for made in gathered.of("evaluate") if made.name in gathered.datasets]
    if not measured:
        return ""
    sheet = f"get-artifact?path=contact_sheets%2F{measured[0]}.png&run_uuid={run.run_id}"
    return f"Pictures of {measured[0]}, such as it reads:\n\n![pictures of {measured[0]}]({sheet})"
