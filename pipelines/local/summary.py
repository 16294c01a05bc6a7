"""The end of a run in the terminal: what summary.json says, as aligned text."""

from pathlib import Path
from typing import Any


def summary_text(summary: dict[str, Any], page: Path) -> str:
    """Return a run's summary as text: accuracy, parity, gate, seconds per stage, where to look further."""
    lines = ["", f"{summary['recipe']} {'finished' if summary['ok'] else 'FAILED'}  {summary['run_tag']}"]
    lines += [f"  error  {error}" for error in summary["errors"]]
    lines += [f"  data   {name} stands for {', '.join(others)}" for name, others in summary["stands_for"].items()]
    if loss := summary["loss"]:
        lines.append(f"  loss   {loss['first']:.4g} at first, {loss['last']:.4g} at the end")
    lines += _benchmarks(summary)
    lines += [_format(entry) for entry in summary["formats"]]
    if fresh := summary["fresh"]:
        lines.append(f"  fresh  {'; '.join(fresh['reasons']) or 'nothing new since run ' + fresh['since']}")
    if gate := summary["gate"]:
        lines.append(f"  gate  {gate['outcome']}: {'; '.join(gate['reasons'])}")
    if drift := summary["drift"]:
        lines += [f"  moved  since {drift['against']}: {words}" for words in drift["moved"]]
    lines += [f"  {name}  {text}" for name, text in summary["reused"].items()]
    lines += [_stage(stage) for stage in summary["stages"]]
    if summary["trace"]:
        names = " ".join(entry["name"].removeprefix("trace/") for entry in summary["trace"])
        lines.append(f"  trace  {page.parent / 'trace'}, in MLflow among the artifacts: {names}")
    lines += [f"  MLflow  {summary['mlflow']['url']}", f"  report  {page}"]
    return "\n".join(lines)


def _benchmarks(summary: dict[str, Any]) -> list[str]:
    rows = []
    for row in summary["benchmarks"]:
        rows.append(
            f"  {row['name']:<24} {row['correct']:>6,}/{row['total']:<6,} {100 * row['accuracy']:6.2f} %"
            f"  (95 %: {100 * row['low']:.2f} to {100 * row['high']:.2f})  1-NED {row['ned']:.4f}"
            f"{_against(row['accuracy'], row['published'])}"
        )
        rows += [f"  {'':<24} {count:>6,} left out: {reason}" for reason, count in row["left_out"].items()]
    if len(summary["benchmarks"]) > 1:
        mean, known = summary["mean_accuracy"], summary["published"]
        rows.append(f"  {'plain mean':<24} {100 * mean:20.2f} %{_against(mean, known and known['mean'])}")
    if champion := summary["champion"]:
        low, high = champion["interval"]
        rows.append(
            f"  {'champion':<24} {100 * champion['mean']:20.2f} %"
            f"  this one {100 * champion['difference']:+.2f} (95 %: {100 * low:+.2f} to {100 * high:+.2f})"
        )
    return rows


def _against(accuracy: float, published: float | None) -> str:
    if published is None:
        return ""
    return f"  published {100 * published:.2f} % ({100 * (accuracy - published):+.2f})"


def _format(entry: dict[str, Any]) -> str:
    name = f"  {entry['format']:<24}"
    if not entry["made"]:
        return f"{name} not made: {entry['reason']}"
    return (
        f"{name} texts equal {entry['texts_equal']}/{entry['samples']}, "
        f"logits within {entry['max_logit_difference']:.1e}, "
        f"{entry['latency_ms_batch1']:.2f} ms at batch 1 (99 %: {entry['latency_p99_ms_batch1']:.2f}), "
        f"{entry['images_per_s_batch16']:,.0f} images/s at batch 16, {entry['images_per_s_batch64']:,.0f} at 64, "
        f"{entry['file_bytes'] / 1e6:.1f} MB, {entry['memory_bytes'] / 1e6:.0f} MB of memory"
    )


def _stage(stage: dict[str, Any]) -> str:
    return (
        f"  {stage['stage'] + ' ' + stage['name']:<40} {stage['seconds']:8.1f} s{'  (found)' if stage['found'] else ''}"
    )
