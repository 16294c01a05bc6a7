"""Cron as the cluster's scheduler reads it: six fields, seconds first (robfig/cron v1)."""

import re
from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

FIELDS = "second minute hour day-of-month month day-of-week"
NAMES = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT"
PLAIN = re.compile(rf"([0-9*,/-]|{NAMES})+", re.IGNORECASE)


def checked(cron: str) -> str:
    """Return an expression in its plainest form; ValueError says why the scheduler would not do what it says."""
    fields = cron.split()
    if len(fields) == 5 and not cron.startswith("@"):
        raise ValueError(f"cron '{cron}' has five fields; the scheduler takes the first for seconds and would run at "
                         f"other times: write '0 {cron}'")  # fmt: skip
    if len(fields) != 6:
        raise ValueError(f"cron '{cron}': expected six fields, {FIELDS}, such as '0 30 2 * * *' for 2:30 every night")
    # The scheduler reads ? as *, knows no L, W or #, and counts the days of a week from 0 to 6.
    fields = [field.replace("?", "*") for field in fields]
    for field, what in zip(fields, FIELDS.split(), strict=True):
        if not PLAIN.fullmatch(field):
            raise ValueError(f"cron '{cron}': {what} is '{field}', expected numbers, names, and the signs * , - /")
    if re.search(r"(?<!/)\b7\b", fields[5]):
        raise ValueError(f"cron '{cron}': day-of-week is '{fields[5]}', expected 0 to 6: Sunday is 0")
    plain = " ".join(fields)
    _simulated(plain, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")))
    return plain


def in_words(cron: str) -> str:
    """Return a checked expression as a sentence."""
    return str(_simulated(cron, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))).explain())


def next_times(cron: str, after: datetime, count: int) -> list[datetime]:
    """Return the next times of a checked expression, in the time zone of `after`, which is the scheduler's."""
    return list(islice(_simulated(cron, after), count))


def zone(name: str) -> ZoneInfo:
    """Return a time zone by its name, such as Europe/Berlin."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"time zone '{name}': expected a name such as UTC or Asia/Shanghai") from None


def _simulated(cron: str, after: datetime) -> CronSim:
    try:
        return CronSim(cron, after)
    except CronSimError as error:
        raise ValueError(f"cron '{cron}': {str(error).lower()}; the fields are {FIELDS}") from None
