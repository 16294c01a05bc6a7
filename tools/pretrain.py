"""Write the weights that come with the project, of the champion of the recipe `small`, and what they read.

After `make run RECIPE=small`: `make pretrained` is both.
"""

from typing import Any

from components.report.gather import gather_run
from components.train.start import find_champion
from pipelines.building import FOLDER, data_sets, recipe_path
from pipelines.local import services
from pipelines.local.evaluating import measure_sets
from wordmill.inference.reading import open_recogniser
from wordmill.inference.trained import load_trained
from wordmill.models.pretrained import PRETRAINED, WEIGHTS, save_halved, write_facts
from wordmill.pictures.image import fit_pictures
from wordmill.recipe.catalogue import load_catalogue, select
from wordmill.recipe.loading import load_recipe
from wordmill.store.artifacts import Manifest
from wordmill.store.storage import Store
from wordmill.synth.renderer import SynthSpec, render

FIRST = 64  # pictures whose readings a test holds the code to
COUNTS = ("correct", "total", "accuracy", "low", "high", "protocol", "content")


def write_weights(store: Store) -> dict[str, Any]:
    """Write the champion's weights in half precision, measure these, and return what is known of them."""
    trained = find_champion(store, PRETRAINED)
    if trained is None:
        raise RuntimeError(f"recipe '{PRETRAINED}' has no champion: make run RECIPE={PRETRAINED} first")
    save_halved(WEIGHTS, load_trained(store, trained))
    recipe = load_recipe(recipe_path(PRETRAINED))
    sets = select(load_catalogue([FOLDER / "datasets.yaml"]), data_sets(recipe))
    run_tag = measure_sets(WEIGHTS, recipe.evaluation.protocol, {name: sets[name] for name in recipe.benchmarks})
    return {
        "recipe": PRETRAINED,
        "git_commit": trained.git_commit,
        "manifest": trained.reference,
        "data": {name: {"source": entry.source, "licence": entry.licence} for name, entry in sets.items()},
        "benchmarks": {made.name: measured(made) for made in gather_run(store, run_tag).of("evaluate")},
        "readings": readings(sets[recipe.benchmarks[0]].source),
    }


def readings(source: str) -> list[list[str | float]]:
    """Return what the weights read of a rendered set's first pictures, and how sure they are of it."""
    recogniser = open_recogniser(WEIGHTS)
    pictures = [picture for picture, _ in render(SynthSpec.parse(source), 0, FIRST)]
    texts, confidences = recogniser.read(fit_pictures(pictures, recogniser.data))
    return [[text, round(float(sure), 3)] for text, sure in zip(texts, confidences, strict=True)]


def measured(made: Manifest) -> dict[str, Any]:
    """Return what a benchmark's measurement says in few numbers."""
    return {key: made.facts[key] for key in COUNTS} | {"ece": made.facts["calibration"]["ece"]}


def main() -> None:
    """Write weights and facts, and say what was measured."""
    facts = write_weights(services.open_store())
    write_facts(facts)
    for name, found in facts["benchmarks"].items():
        print(f"{name}: {found['correct']:,} of {found['total']:,}, {100 * found['accuracy']:.2f} %")
    print(WEIGHTS)


if __name__ == "__main__":
    main()
