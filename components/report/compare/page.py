"""A comparison as a page: one file that needs no network, in the style of a run's report."""

import math
import time
from typing import Any

from markupsafe import Markup

from components.report.charts import Curve, line_chart
from components.report.compare.comparison import Comparison, date
from components.report.page import FOLDER, templates

CHARTS = {  # curve -> title
    "train/loss": "Training loss",
    "val/loss": "Validation loss",
    "val/accuracy": "Validation accuracy",
    "train/lr": "Learning rate",
    "train/images_per_s": "Images per second",
}


def compare_html(comparison: Comparison, curves: dict[str, dict[str, Curve]]) -> str:
    """Return the page as HTML text; curves are those of CHARTS, by metric and run id."""
    css = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))  # noqa: S704 (this folder's own file)
    made = date(time.time())
    template = templates().get_template("compare/page.html.j2")
    return template.render(c=comparison, charts=comparison_charts(comparison, curves), css=css, made=made, date=date)


def comparison_charts(comparison: Comparison, curves: dict[str, dict[str, Curve]]) -> list[dict[str, Any]]:
    """Return title, legend with last values and SVG of each curve that a run has; a run keeps its colour everywhere."""
    drawn = []
    for name, title in CHARTS.items():
        series = {letter: [point for point in curves[name].get(run.run_id, []) if math.isfinite(point[1])]
                  for letter, run in comparison.runs.items()}  # fmt: skip
        if any(series.values()):
            legend = [{"letter": letter, "last": f"{curve[-1][1]:.4g}" if curve else "-"}
                      for letter, curve in series.items()]  # fmt: skip
            drawn.append({"title": title, "legend": legend, "svg": line_chart(title, series)})
    return drawn
