"""What the machine does during training, as MLflow's system metrics: processors, memory, disk, network and GPUs."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # MLflow takes seconds to import, which a finished training need not
    from wordmill.store.tracking import Point, Run

EVERY_S = 10.0
SYSTEM = "system/"  # how MLflow's page knows such metrics


class Usage:
    """Measures the machine by MLflow's own monitors, in a pod its whole node; `step` counts the measurements."""

    def __init__(self, run: "Run", step: int) -> None:
        from wordmill.store.experiments import system_monitor

        self.monitor, self.step, self.measured = system_monitor(run), step, time.monotonic()

    def points(self) -> list["Point"]:
        """Return what the machine does now, every EVERY_S seconds; else nothing."""
        if time.monotonic() - self.measured < EVERY_S:
            return []
        self.measured = time.monotonic()
        self.monitor.collect_metrics()
        found = self.monitor.aggregate_metrics()
        for part in self.monitor.monitors:
            part.clear_metrics()
        self.step += 1
        return [(f"{SYSTEM}{name}", float(value), self.step, time.time()) for name, value in found.items()]
