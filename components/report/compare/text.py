"""A comparison as text for a terminal of 100 columns."""

from collections.abc import Iterable

from components.report.compare.comparison import Comparison, Difference, Row, date

WIDTH = 100
LABEL = 28
CELL = 14


def comparison_text(comparison: Comparison) -> str:
    """Return the runs, what differs and the tables as lines of at most 100 characters."""
    lines = [_clipped(f"{letter}  {run.name}  {run.tags.get('wordmill.recipe', 'recipe not recorded')}  {run.status}"
                      f"  {date(run.started)}", WIDTH)
             for letter, run in comparison.runs.items()]  # fmt: skip
    lines += [_clipped(f"note: {note}", WIDTH) for note in comparison.notes]
    for group, found in comparison.differences.items():
        lines += ["", f"{group}: {'differs in' if found else 'no difference'}"]
        lines += [line for entry in found for line in _difference(entry)]
    lines += _table("benchmarks", comparison, comparison.benchmarks)
    lines += _table("cost", comparison, comparison.cost)
    return "\n".join(lines)


def _table(title: str, comparison: Comparison, rows: list[Row]) -> list[str]:
    width = min(CELL, (WIDTH - LABEL) // len(comparison.runs))
    if not rows:
        return ["", f"{title}: none recorded"]
    return ["", _line(title, comparison.runs, width), *(_line(row.name, row.cells, width) for row in rows)]


def _line(label: str, cells: Iterable[str], width: int) -> str:
    return f"{_clipped(label, LABEL):<{LABEL}}" + "".join(f"{_clipped(cell, width - 1):>{width}}" for cell in cells)


def _difference(entry: Difference) -> list[str]:
    """Return one line for each value, the runs that have it in front."""
    names = [entry.name, *[""] * (len(entry.values) - 1)]
    return [_clipped(f"  {_clipped(name, LABEL - 4):<{LABEL - 2}}{letters:<16}{value}", WIDTH)
            for name, (value, letters) in zip(names, entry.values.items(), strict=True)]  # fmt: skip


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
