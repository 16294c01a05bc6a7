"""The data sets of a run as MLflow shows them: what each is, and what it served for."""

from typing import Any

from components.report.gather import Gathered
from components.report.logged.entries import used_sets
from wordmill.store.artifacts import Manifest
from wordmill.store.experiments import InputSet


def input_sets(gathered: Gathered) -> list[InputSet]:
    """Return every packed data set of a run, those of training first."""
    sets, fetched = used_sets(gathered), gathered.one("fetch")
    contexts = dict.fromkeys(gathered.datasets, "benchmark")
    contexts |= dict.fromkeys(sets["val"], "validation") | dict.fromkeys(sets["train"], "training")
    order = ("training", "validation", "benchmark")
    entries = fetched.facts["entries"] if fetched else {}
    return [_shown(name, gathered.datasets[name], entries.get(name, {}), context)
            for name, context in sorted(contexts.items(), key=lambda item: order.index(item[1]))]  # fmt: skip


def _shown(name: str, packed: Manifest, entry: dict[str, Any], context: str) -> InputSet:
    told = packed.facts
    facts = {"num_rows": told["samples"], "licence": entry.get("licence", "")}
    if "read" in told:  # one that is drawn while training is packed nowhere, and nothing of it is left out
        facts |= {"read": told["read"], "dropped": sum(told["dropped"].values()), "quarantined": told["quarantined"],
                  "shape": "x".join(map(str, told["shape"])), "content": told["content"]}  # fmt: skip
    return InputSet(name=name, digest=packed.key, source=entry.get("source", ""), context=context, facts=facts)
