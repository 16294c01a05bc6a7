"""Runs as MLflow holds them: found by name or by recipe among thousands, and the curves of a few."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from components.report.charts import Curve
from wordmill.store.experiments import sampled_histories
from wordmill.store.tracking import asking, connect, page_of, tracking_uri

PAGE = 10  # runs of one search request: the server reads all numbers, parameters and tags of each
POINTS = 200  # of a curve: a chart is 380 units wide
NAMED = 5  # runs that an error names
OURS = "tags.`wordmill.run_tag` LIKE '%'"  # the runs of this project


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What MLflow holds of one pipeline run, without its curves; times are unix times in s."""

    run_id: str
    run_name: str  # on MLflow's pages
    url: str
    status: str
    started: float
    ended: float | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    datasets: dict[str, str]  # digests by name, which are other ones where other code has packed the same samples
    contents: dict[str, str]  # digests of their samples by name; older runs have none

    @property
    def name(self) -> str:
        """Return the run tag, or the MLflow run id of a run without."""
        return self.tags.get("wordmill.run_tag", self.run_id)


def last(recipe: str, count: int) -> list[Logged]:
    """Return the `count` newest reported runs of a recipe, the newest first; ValueError where there are fewer."""
    found = list(islice(_search(f"tags.`wordmill.recipe` = {_quoted(recipe)}"), count))
    if len(found) < count:
        raise ValueError(f"recipe '{recipe}': found {len(found)} reported runs in MLflow at {tracking_uri()}, "
                         f"expected {count}; {_newest()}")  # fmt: skip
    return found


def find_run(name: str) -> Logged:
    """Return the run with this run tag, MLflow name or id, else the one of which any begins so; else ValueError."""
    keys = ("tags.`wordmill.run_tag`", "attributes.run_name", "attributes.run_id")
    whole, start = _quoted(name), _quoted(f"{name}%")
    for condition in (f"= {whole}", f"LIKE {start}"):
        # To LIKE an underscore is any character.
        hits = (run for key in keys for run in _search(f"{key} {condition}")
                if any(known.startswith(name) for known in (run.name, run.run_name, run.run_id)))  # fmt: skip
        found = {run.run_id: run for run in islice(hits, NAMED)}
        if len(found) == 1:
            return found.popitem()[1]
        if found:
            raise ValueError(f"run '{name}' may be any of {_names(found.values())}: name one in full, or by its id")
    raise ValueError(f"run '{name}': no run tag, name or id in MLflow at {tracking_uri()} is or begins so; "
                     f"{_newest()}")  # fmt: skip


def histories(runs: list[Logged], names: Iterable[str]) -> dict[str, dict[str, Curve]]:
    """Return curves by metric and run id, thinned; of a step that was logged twice the later value counts."""
    curves: dict[str, dict[str, Curve]] = {}
    for name in names:
        having = [run.run_id for run in runs if name in run.metrics]
        found = sampled_histories(having, name, POINTS) if having else {}
        curves[name] = {run_id: _by_step(points) for run_id, points in found.items()}
    return curves


def _by_step(points: Curve) -> Curve:
    latest = {point[0]: point for point in sorted(points, key=lambda point: point[2])}
    return [latest[step] for step in sorted(latest)]


def _search(condition: str) -> Iterator[Logged]:
    """Give the runs of all experiments that meet MLflow's condition, the newest first, page by page."""
    client, token, more = connect(), None, True
    with asking("search the runs"):
        experiments = _experiment_ids(client)
        while more:
            page = client.search_runs(experiments, condition, max_results=PAGE, page_token=token,
                                      order_by=["attributes.start_time DESC"])  # fmt: skip
            yield from map(_logged, page)
            token = page.token
            more = bool(token)


def _experiment_ids(client: Any) -> list[str]:
    """Return every experiment's id: the engine may have put a run into one of its own."""
    page = client.search_experiments()
    ids = [str(found.experiment_id) for found in page]
    while page.token:
        page = client.search_experiments(page_token=page.token)
        ids += [str(found.experiment_id) for found in page]
    return ids


def _logged(stored: Any) -> Logged:
    info, data, sets = stored.info, stored.data, [found.dataset for found in stored.inputs.dataset_inputs]
    return Logged(
        run_id=info.run_id, run_name=info.run_name, url=page_of(info.experiment_id, info.run_id), status=info.status,
        started=info.start_time / 1000, ended=info.end_time and info.end_time / 1000,
        params=dict(data.params), tags=dict(data.tags), metrics=dict(data.metrics),
        datasets={one.name: one.digest for one in sets},
        contents={one.name: told for one in sets if (told := json.loads(one.profile or "{}").get("content"))},
    )  # fmt: skip


def _newest() -> str:
    return f"the newest runs are {_names(islice(_search(OURS), NAMED)) or 'none'}"


def _names(runs: Iterable[Logged]) -> str:
    return ", ".join(f"{run.name} ({run.run_id[:8]})" for run in runs)


def _quoted(text: str) -> str:
    """Return text as MLflow's search takes it; ValueError for what no name of a run or recipe holds."""
    if not re.fullmatch(r"[\w.-]+%?", text):
        raise ValueError(f"'{text.removesuffix('%')}': a run or recipe is named by letters, digits, '_', '.' and '-'")
    return f"'{text}'"
