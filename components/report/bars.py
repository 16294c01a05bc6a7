"""Bar charts of shares as inline SVG: accuracy by word length, and the reliability diagram."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from components.report.charts import LEFT, RIGHT, TOP, WIDTH, Axis, grid_line, number
from wordmill.text.metrics import wilson_interval

HEIGHT = 252
FOOT = 172  # where the bars stand; below are the labels, then a strip with the bars' sample counts
STRIP_TOP, STRIP_FOOT = 200, 246
MOST_LENGTHS = 16  # narrower bars have no room for their labels


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Samples of which a share was read right, and a mark to compare the share with."""

    total: int
    correct: int
    mark: float | None = None

    @property
    def share(self) -> float:
        """Return the share read right, 0..1."""
        return self.correct / self.total


def length_chart(rows: list[dict[str, int]]) -> Markup:
    """Return accuracy by word length; the longest words share the last bar where the lengths are many."""
    if len(rows) > MOST_LENGTHS:
        shown, rest = rows[: MOST_LENGTHS - 1], rows[MOST_LENGTHS - 1 :]
        tail = {key: sum(row[key] for row in rest) for key in ("total", "correct")}
        rows = [*shown, {"length": rest[0]["length"], **tail}]
        names = [str(row["length"]) for row in shown] + [f"{rest[0]['length']}+"]
    else:
        names = [str(row["length"]) for row in rows]
    bars = [Bar(total=row["total"], correct=row["correct"]) for row in rows]
    return bar_chart("Accuracy by word length", bars, {i + 0.5: name for i, name in enumerate(names)})


def reliability_chart(bins: list[dict[str, Any]]) -> Markup:
    """Return the reliability diagram: each bin's accuracy as a bar, its mean confidence as a mark."""
    bars = [Bar(total=count, correct=round(count * row["accuracy"]), mark=row["confidence"]) if count else None
            for row in bins for count in [row["count"]]]  # fmt: skip
    labels = {len(bins) * tenth / 10: number(tenth / 10) for tenth in (0, 2, 4, 6, 8, 10)}
    return bar_chart("Accuracy by confidence", bars, labels)


def bar_chart(title: str, bars: list[Bar | None] | list[Bar], labels: dict[float, str]) -> Markup:
    """Return an SVG element with a bar and its 95 % interval per entry; labels stand at positions 0..len(bars)."""
    across = Axis(low=0, high=len(bars), start=LEFT, stop=WIDTH - RIGHT)
    upright = Axis(low=0, high=1, start=FOOT, stop=TOP)
    most = max(bar.total for bar in bars if bar)
    strip = Axis(low=0, high=most, start=STRIP_FOOT, stop=STRIP_TOP)
    parts = [grid_line(upright.position(share), f"{100 * share:g} %") for share in (0, 0.25, 0.5, 0.75, 1)]
    parts += [f'<text x="{across.position(place)}" y="{FOOT + 15}" text-anchor="middle">{text}</text>'
              for place, text in labels.items()]  # fmt: skip
    parts += [f'<text x="{LEFT - 6}" y="{STRIP_TOP + 8}" text-anchor="end">{most:,}</text>',
              f'<text x="{LEFT - 6}" y="{STRIP_FOOT}" text-anchor="end">words</text>']  # fmt: skip
    parts += [_bar(bar, i, across, upright, strip) for i, bar in enumerate(bars) if bar]
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 (numbers, and the title escaped)


def _bar(bar: Bar, index: int, across: Axis, upright: Axis, strip: Axis) -> str:
    left, middle, right = (across.position(index + share) for share in (0.12, 0.5, 0.88))
    low, high = wilson_interval(bar.correct, bar.total)
    told = f"{bar.correct:,} of {bar.total:,} right, {100 * bar.share:.2f} %"
    ends = f'y1="{upright.position(low)}" y2="{upright.position(high)}"'
    parts = [_box("part", left, right, upright.position(bar.share), FOOT),
             _box("count", left, right, strip.position(bar.total), STRIP_FOOT),
             f'<line class="interval" x1="{middle}" x2="{middle}" {ends}/>']  # fmt: skip
    if bar.mark is not None:
        told += f", mean confidence {100 * bar.mark:.2f} %"
        left, right, y = across.position(index), across.position(index + 1), upright.position(bar.mark)
        parts.append(f'<line class="mark" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
    return f"<g><title>{told}</title>{''.join(parts)}</g>"


def _box(kind: str, left: float, right: float, top: float, foot: float) -> str:
    return f'<rect class="{kind}" x="{left}" y="{top}" width="{right - left:.1f}" height="{foot - top:.1f}"/>'
