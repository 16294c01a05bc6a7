"""Line charts as inline SVG; colours and sizes of text come from the page's style sheet."""

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from wordmill.text.metrics import wilson_interval

WIDTH, HEIGHT = 380, 210  # user units; text stays readable where the chart fills a phone's screen
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 24
MOST_POINTS = 240  # more cannot be told apart at this width

Curve = list[tuple[int, float, float]]  # step, value, unix time in s


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values and the pixels that it is drawn on."""

    low: float
    high: float
    start: float
    stop: float

    def position(self, value: float) -> float:
        """Return where a value is drawn, in user units."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)


def line_chart(title: str, series: dict[str, Curve]) -> Markup:
    """Return an SVG element with one line per series over the training steps; an empty series keeps its colour free."""
    thinned = {name: thin([(step, value) for step, value, _ in curve]) for name, curve in series.items()}
    steps = [step for points in thinned.values() for step, _ in points]
    values = [value for points in thinned.values() for _, value in points]
    marks = ticks(min(*values, 0.0), max(values), 4)
    across = Axis(low=0, high=max(*steps, 1), start=LEFT, stop=WIDTH - RIGHT)
    upright = Axis(low=marks[0], high=marks[-1], start=HEIGHT - BOTTOM, stop=TOP)
    parts = [grid_line(upright.position(mark), number(mark)) for mark in marks]
    parts += [_step_label(across.position(mark), mark) for mark in ticks(0, across.high, 4) if mark <= across.high]
    parts += [_line(i, points, across, upright) for i, points in enumerate(thinned.values()) if points]
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 (numbers, and the title escaped)


def learning_chart(curve: dict[str, Any]) -> Markup:
    """Return an SVG element with accuracy by words learnt from, on a scale of doublings, the fit and its forecast."""
    points, last = curve["points"], curve["points"][-1]
    across = Axis(low=math.log2(points[0]["words"]) - 0.2, high=math.log2(2 * last["words"]) + 0.2, start=LEFT,
                  stop=WIDTH - RIGHT)  # fmt: skip
    upright = Axis(low=0, high=1, start=HEIGHT - BOTTOM, stop=TOP)
    parts = [grid_line(upright.position(share), f"{100 * share:g} %") for share in (0, 0.25, 0.5, 0.75, 1)]
    parts += [_step_label(across.position(math.log2(words)), words)
              for words in (*(point["words"] for point in points), 2 * last["words"])]  # fmt: skip
    places = [(across.position(math.log2(words)), upright.position(share)) for words, share in curve["curve"]]
    parts.append(f'<polyline class="line s0" points="{" ".join(f"{x},{y}" for x, y in places)}"/>')
    for point in points:
        x, share = across.position(math.log2(point["words"])), point["correct"] / point["total"]
        parts.append(_upright(x, wilson_interval(point["correct"], point["total"]), upright))
        told = f"<title>{point['words']:,} words: {point['correct']:,} of {point['total']:,} right</title>"
        parts.append(f'<circle class="dot s0" cx="{x}" cy="{upright.position(share)}" r="3.5">{told}</circle>')
    now = curve["curve"][-1][1] - curve["gain"]
    reach = (max(0.0, now + curve["interval"][0]), min(1.0, now + curve["interval"][1]))
    parts.append(_upright(places[-1][0], reach, upright))
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Accuracy by words learnt from">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 (numbers alone)


def _upright(x: float, interval: tuple[float, float], upright: Axis) -> str:
    low, high = (upright.position(share) for share in interval)
    return f'<line class="interval" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'


def grid_line(y: float, label: str) -> str:
    """Return a line across the plot at height y, in user units, with its label on the left."""
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
    return f'{line}<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>'


def _step_label(x: float, step: float) -> str:
    anchor = "end" if x > WIDTH - 30 else "middle"
    return f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{number(step)}</text>'


def _line(index: int, points: list[tuple[float, float]], across: Axis, upright: Axis) -> str:
    places = [(across.position(step), upright.position(value)) for step, value in points]
    last = f'<circle class="dot s{index}" cx="{places[-1][0]}" cy="{places[-1][1]}" r="3"/>'
    return f'<polyline class="line s{index}" points="{" ".join(f"{x},{y}" for x, y in places)}"/>{last}'


def thin(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """Return at most 240 points: means of equal groups of neighbours, non-finite values left out, the last one kept."""
    finite = [(float(step), value) for step, value in points if math.isfinite(value)]
    size = math.ceil(len(finite) / (MOST_POINTS - 1))
    if size <= 1:
        return finite
    groups = [finite[i : i + size] for i in range(0, len(finite), size)]
    means = ([math.fsum(values) / len(group) for values in zip(*group, strict=True)] for group in groups)
    return [*((step, value) for step, value in means), finite[-1]]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round values (1, 2 or 5 times a power of ten apart) that enclose low..high."""
    span = high - low or abs(high) or 1.0
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """Return a number in few characters: 12k, 0.25, 5e-4."""
    if value and abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"
