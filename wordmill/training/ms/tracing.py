"""Traces of MindSpore's profiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindspore import profiler

ACTIVITIES = {"cpu": [profiler.ProfilerActivity.CPU],
              "npu": [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.NPU]}  # fmt: skip


@contextmanager
def trace(folder: Path, device: str) -> Iterator[None]:
    """Trace what is done within, into a folder `<host>_<process>_<time>_ascend_ms` of the given one.

    ASCEND_PROFILER_OUTPUT/trace_view.json in it is a Chrome trace, which MindStudio Insight and Perfetto open; Insight
    opens the whole folder.
    """
    handler = profiler.tensorboard_trace_handler(str(folder))
    with profiler.profile(activities=ACTIVITIES[device], on_trace_ready=handler):
        yield
