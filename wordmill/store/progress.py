"""One line of progress every few seconds: how far, how fast, how long still."""

import time


class Progress:
    """Counts done work and prints `what  done/total unit  percent  rate  time left  note` every `every_s` seconds."""

    def __init__(self, what: str, total: int, unit: str, every_s: float = 5.0, already: int = 0) -> None:
        self.what, self.total, self.unit, self.every_s = what, total, unit, every_s
        self.already = already  # done before the clock started
        self.started = self.printed = time.monotonic()
        self.done = 0

    def update(self, done: int, note: str = "") -> None:
        """Set the count of finished units; prints when it is time, and when all is done."""
        self.done = done
        now = time.monotonic()
        if now - self.printed >= self.every_s or done == self.total:
            self.printed = now
            print(self.line(now - self.started, note), flush=True)

    def line(self, elapsed_s: float, note: str = "") -> str:
        """Return the progress line after so many seconds."""
        rate = (self.done - self.already) / elapsed_s if elapsed_s > 0 else 0.0
        if self.done > self.total:  # which is not known
            return f"{self.what}  {self.done:,} {self.unit}  {rate:,.0f} {self.unit}/s  {note}".rstrip()
        left = f"{duration((self.total - self.done) / rate)} left" if rate > 0 else "time left unknown"
        share = 100.0 * self.done / self.total if self.total else 100.0
        count = f"{self.done:,}/{self.total:,} {self.unit}"
        return f"{self.what}  {count}  {share:.1f} %  {rate:,.0f} {self.unit}/s  {left}  {note}".rstrip()


def duration(seconds: float) -> str:
    """Return seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
