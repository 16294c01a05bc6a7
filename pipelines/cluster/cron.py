"""Cron as the cluster's scheduler reads it: six fields, seconds first (robfig/cron v1).

N/step goes from N to the field's end, and A-A/step is A alone. The days of month and week must both fit where one of
them has a star, also as `*/2` or in a list, else either is enough. A time that daylight saving leaves out is left out,
one that it brings twice comes twice.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

FIELDS = "second minute hour day-of-month month day-of-week"
NAMES = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT"
FIRST, LAST = (0, 0, 0, 1, 1, 0), (59, 59, 23, 31, 12, 6)  # of each field's numbers
STEPPED = re.compile(r"([0-9]+|[A-Z]{3})(?:-([0-9]+|[A-Z]{3}))?/(0*[1-9][0-9]*)", re.IGNORECASE)
RANGE = re.compile(r"([0-9]+|[A-Z]{3})-([0-9]+|[A-Z]{3})", re.IGNORECASE)
MOST_TIMES = 20_000  # that are looked at for the longest gap: a year of them, one a half hour
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
    if re.search(r"(?<!/)\b0*7\b", fields[5]):
        raise ValueError(f"cron '{cron}': day-of-week is '{fields[5]}', expected 0 to 6: Sunday is 0")
    plain = " ".join(_rewritten(field, number) for number, field in enumerate(fields))
    _simulated(plain, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")))
    return plain


def in_words(cron: str) -> str:
    """Return a checked expression as a sentence."""
    return str(_simulated(cron, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))).explain())


def next_times(cron: str, after: datetime, count: int) -> list[datetime]:
    """Return the next times of a checked expression, in the time zone of `after`, which is the scheduler's."""
    return list(islice(_times(cron, after), count))


def longest_gap(cron: str, after: datetime) -> tuple[datetime, datetime]:
    """Return the two times between which an expression is silent for longest, the first of them in the next year."""
    end = after + timedelta(days=366)
    times = _until(end, cron, after)
    if len(times) < MOST_TIMES:
        return _longest(times, after)
    # Once an hour is enough to find where it is silent for more than that, and around there each time is looked at.
    fields = [str(times[0].second), str(times[0].minute), *cron.split()[2:]]
    start, _ = _longest(_until(end, " ".join(fields), after), after)
    start = _until(start + timedelta(hours=1), cron, start - timedelta(seconds=1))[-2]
    return start, next(_times(cron, start))


def _longest(times: list[datetime], after: datetime) -> tuple[datetime, datetime]:
    pairs = list(pairwise(times)) or [(after, times[0])]
    return max(pairs, key=lambda pair: pair[1].astimezone(UTC) - pair[0].astimezone(UTC))


def _until(end: datetime, cron: str, after: datetime) -> list[datetime]:
    """Return the times after one, up to the first that is not before the end, or MOST_TIMES."""
    found: list[datetime] = []
    for time in islice(_times(cron, after), MOST_TIMES):
        found.append(time)
        if time >= end:
            break
    return found


def _times(cron: str, after: datetime) -> Iterator[datetime]:
    """Give the times after one by the clock on the wall: none that it leaves out, both that it shows twice."""
    again: list[datetime] = []
    for wall in _simulated(cron, after.replace(tzinfo=None) - timedelta(hours=3)):
        here = wall.replace(tzinfo=after.tzinfo, fold=0)
        later = here.replace(fold=1)
        twice = here.utcoffset() != later.utcoffset()
        if again and not twice:
            yield from again
            again = []
        if here.astimezone(UTC).astimezone(after.tzinfo).replace(tzinfo=None) != wall:
            continue  # the clock is put forward over it
        if here.astimezone(UTC) > after.astimezone(UTC):
            yield here
        if twice and later.astimezone(UTC) > after.astimezone(UTC):
            again.append(later)


def _rewritten(field: str, number: int) -> str:
    """Return a field with steps and names written out, and what has a star, which says more than numbers, in front."""
    parts = [_stepped(part, number) for part in field.split(",")]
    return ",".join(sorted(parts, key=lambda part: not part.startswith("*")))


def _stepped(part: str, number: int) -> str:
    if match := RANGE.fullmatch(part):
        ends = [_number(text, number) for text in match.groups()]  # the library takes a range's last SUN for 7
        return part if min(ends) < 0 else f"{ends[0]}-{ends[1]}"
    match = STEPPED.fullmatch(part)
    if not match:
        return part
    start = _number(match[1], number)
    end = _number(match[2], number) if match[2] else LAST[number]
    if not FIRST[number] <= start <= end <= LAST[number]:
        return match[1] if match[2] is None else part.partition("/")[0]  # which is refused
    return ",".join(map(str, range(start, end + 1, int(match[3]))))


def _number(text: str, number: int) -> int:
    """Return the number of a name of a month or day; one that is out of bounds where there is none."""
    if text.isdecimal():
        return int(text)
    names = {4: NAMES.split("|")[:12], 5: NAMES.split("|")[12:]}.get(number, [])
    return names.index(text.upper()) + FIRST[number] if text.upper() in names else -1


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
