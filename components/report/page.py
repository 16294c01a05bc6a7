"""The page report.html: one file that needs no network, for wide and narrow, light and dark screens."""

import base64
import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.report.bars import length_chart, reliability_chart
from components.report.charts import Curve, learning_chart, line_chart
from components.report.gather import Gathered
from wordmill.store.artifacts import Manifest, stored_manifest
from wordmill.store.progress import duration
from wordmill.store.storage import Store

FOLDER = Path(__file__).resolve().parent
SHOWN_MISTAKES = 24  # per benchmark; all that were kept are in mistakes.json
CHARTS: dict[str, dict[str, str]] = {  # title -> curve -> what the legend calls it
    "Loss": {"train/loss": "training", "val/loss": "validation"},
    "Validation accuracy": {"val/accuracy": "validation"},
    "Learning rate": {"train/lr": "learning rate"},
    "Images per second": {"train/images_per_s": "images/s"},
}


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What the page shows beyond the summary: pictures, curves, and how each data set fared."""

    charts: list[dict[str, Any]]
    mistakes: dict[str, list[dict[str, Any]]]  # by benchmark, as in mistakes.json
    datasets: list[dict[str, Any]]
    made_s: dict[str, float]  # "stage.name" -> seconds of the work where it was done
    leaks: dict[str, Any] | None = None  # training pictures that are a benchmark's: sets, and a sheet of some


def report_html(summary: dict[str, Any], extras: Extras) -> str:
    """Return the page of a run as HTML text."""
    css = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))  # noqa: S704 (this folder's own file)
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return templates().get_template("page.html.j2").render(s=summary, x=extras, css=css, made=made)


@cache
def templates() -> Environment:
    """Return the templates of this folder: everything is escaped, and a name that is not given is an error."""
    found = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                        lstrip_blocks=True)  # fmt: skip
    found.filters |= {"percent": percent, "points": percentage_points, "duration": seconds_text, "count": count}
    found.filters |= {"size": size, "length_chart": length_chart, "reliability_chart": reliability_chart}
    found.filters |= {"learning_chart": learning_chart}
    return found


def collect_extras(store: Store, gathered: Gathered) -> Extras:
    """Fetch what the page shows beyond the summary."""
    train, fetched = gathered.one("train"), gathered.one("fetch")
    entries = fetched.facts["entries"] if fetched else {}
    return Extras(
        charts=charts(train.curves if train else {}),
        mistakes={item.name: json.loads(store.fetch(item.object("mistakes.json")).read_text("utf-8"))[:SHOWN_MISTAKES]
                  for item in gathered.of("evaluate")},
        datasets=[_dataset(store, name, manifest, entries.get(name)) for name, manifest in gathered.datasets.items()],
        made_s={name: manifest.seconds for name, manifest in gathered.manifests.items()},
        leaks=_leaks(store, gathered.one("shard")),
    )  # fmt: skip


def _leaks(store: Store, combined: Manifest | None) -> dict[str, Any] | None:
    """Return how many training pictures are a benchmark's by set, with the sheet of some; None where none is sought."""
    found = combined.facts.get("leaks") if combined else None
    if not found:
        return None
    pictures = [item for item in stored_manifest(store, found["manifest"]).objects if item.name.endswith(".png")]
    sheets = [base64.b64encode(store.fetch(item).read_bytes()).decode("ascii") for item in pictures]
    return {"sets": found["sets"], "sheet": sheets[0] if sheets else ""}


def charts(curves: dict[str, Curve]) -> list[dict[str, Any]]:
    """Return title, legend with last values and SVG of each chart that has a curve."""
    drawn = []
    for title, names in CHARTS.items():
        series = {label: curves[name] for name, label in names.items() if curves.get(name)}
        if series:
            legend = [{"label": label, "last": f"{curve[-1][1]:.4g}"} for label, curve in series.items()]
            drawn.append({"title": title, "legend": legend, "svg": line_chart(title, series)})
    return drawn


def _dataset(store: Store, name: str, manifest: Manifest, entry: dict[str, Any] | None) -> dict[str, Any]:
    pictures = [item for item in manifest.objects if item.name.endswith(".png")]
    drawn = {item.name: base64.b64encode(store.fetch(item).read_bytes()).decode("ascii") for item in pictures}
    sheets = {"sheet": drawn.get("contact_sheet.png", ""), "quarantine_sheet": drawn.get("quarantine.png", "")}
    streamed = bool(manifest.inputs.get("streamed"))
    return {"name": name, "key": manifest.key, "entry": entry, "streamed": streamed, **sheets, **manifest.facts}


def percent(share: float) -> str:
    """Return a share 0..1 as per cent with two decimals."""
    return f"{100 * share:.2f} %"


def percentage_points(difference: float) -> str:
    """Return a difference of shares, -1..1, in percentage points with its sign and two decimals."""
    return f"{100 * difference:+.2f}"


def seconds_text(seconds: float) -> str:
    """Return seconds as people read them: `4.2 s` below a minute, else `m:ss`."""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def count(number: int) -> str:
    """Return a count with its thousands apart."""
    return f"{number:,}"


def size(number: int) -> str:
    """Return a number of bytes in MB."""
    return f"{number / 1e6:.2f} MB"
