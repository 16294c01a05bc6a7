"""A model card in Markdown, apart from any store."""

import dataclasses
from typing import Any

from components.report.gather import Gathered
from components.report.logged.model import CHARACTERS, card_text, model_text
from tests.components.report.logged.test_description import gathered, summary
from wordmill.store.artifacts import Manifest
from wordmill.store.storage import Object
from wordmill.store.tracking import Run

RUN = Run(None, "r1", "7")  # type: ignore[arg-type]


def whole(symbols: str = "abc") -> Gathered:
    """A run with a benchmark, one exported file and one that could not be made."""
    found = gathered()
    trained = found.manifests["train.crnn"]
    data = {"height": 32, "width": 100, "channels": 1, "charset": "lower36"}
    weights = Object(name="model.safetensors", bytes=3_100_000, sha256="0")
    trained = dataclasses.replace(
        trained, inputs=trained.inputs | {"data": data, "symbols": symbols}, objects=(weights,)
    )

    def manifest(stage: str, name: str, **facts: Any) -> Manifest:
        return Manifest(stage=stage, name=name, key=name, inputs={}, git_commit="", facts=facts)

    more = [
        manifest("fetch", "datasets", entries={"mj": {"licence": "CC-BY-4.0"}, "checks": {"licence": ""}}),
        manifest("evaluate", "words"),
        manifest("smoke", "onnx", format="onnx", made=True, file_bytes=9_000_000),
        manifest("smoke", "om", format="om", made=False, reason="no atc"),
    ]
    manifests = found.manifests | {"train.crnn": trained} | {f"{one.stage}.{one.name}": one for one in more}
    words = manifest("shard", "words", samples=4)
    return Gathered(records=[], manifests=manifests, datasets=found.datasets | {"words": words})


def test_a_version_says_what_it_reads_how_well_how_it_is_used_and_what_it_is_made_of() -> None:
    text = card_text(whole(), summary(), RUN, "place/example.png")
    assert text.startswith("75.00 % of words read right on words. The gate has refused version 7 of wordmill-tiny: ")
    for part in (
        "**Reads one word of a picture**, fitted to 32 x 100 pixels, grey, in 3 characters, charset lower36: ` abc `.",
        "| words | 75.00 % | 30.00 to 95.40 | 3 / 4 |",
        'load_model("models:/wordmill-tiny/7")',
        "Its input example:\n\n![input example](place/example.png)",
        "| safetensors | 3.1 |\n| onnx | 9.0 |\n\n",
        "| mj | training | 1,234 | CC-BY-4.0 |\n| checks | validation | 9 | not told |",
        "![pictures of words](get-artifact?path=contact_sheets%2Fwords.png&run_uuid=r1)",
    ):
        assert part in text, part


def test_a_card_has_room_in_mlflow_whatever_the_charset_and_however_many_benchmarks() -> None:
    rows = [summary()["benchmarks"][0] | {"name": f"benchmark_{number}"} for number in range(100)]
    text = card_text(whole("x" * 6000), summary(benchmarks=rows), RUN, "")
    assert len(text) <= CHARACTERS
    assert "6,000 characters" in text
    assert "input example" not in text
    assert "benchmark_3 |" not in text  # a table that has no room is left out as a whole
    assert 'load_model("models:/wordmill-tiny/7")' in text


def test_a_model_says_what_its_aliases_mean() -> None:
    text = model_text(whole("a`b"), summary(), True)
    assert "`champion` is in use" in text
    assert 'load_model("models:/wordmill-tiny@champion")' in text
    assert "`` a`b ``" in text
    assert model_text(Gathered(records=[], manifests={}, datasets={}), summary(), True) == ""


def test_a_model_without_a_champion_is_used_by_the_version_that_there_is() -> None:
    text = model_text(whole(), summary(), False)
    assert "No version is `champion` yet" in text
    assert 'load_model("models:/wordmill-tiny/7")' in text
    assert "@champion" not in text
