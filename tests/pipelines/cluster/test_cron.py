from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from pipelines.cluster import cron
from pipelines.cluster.verbs import silent_too_long


@pytest.mark.parametrize(
    ("expression", "after", "times"),
    [
        # Saturday 21 November 2026, 3:00; nightly at 2:30.
        ("0 30 2 * * *", "2026-11-21 03:00:00", ["2026-11-22 02:30:00", "2026-11-23 02:30:00", "2026-11-24 02:30:00"]),
        # Seconds come first.
        (
            "15 0 */6 * * *",
            "2026-11-21 03:00:00",
            ["2026-11-21 06:00:15", "2026-11-21 12:00:15", "2026-11-21 18:00:15"],
        ),
        # Days of the week: 1 is Monday.
        ("0 0 4 * * 1-5", "2026-11-21 03:00:00", ["2026-11-23 04:00:00", "2026-11-24 04:00:00", "2026-11-25 04:00:00"]),
        ("0 0 4 ? * sun", "2026-11-21 03:00:00", ["2026-11-22 04:00:00", "2026-11-29 04:00:00", "2026-12-06 04:00:00"]),
        # Both day fields restricted: either is enough. 1 December 2026 is a Tuesday.
        ("0 0 4 1 * MON", "2026-11-25 00:00:00", ["2026-11-30 04:00:00", "2026-12-01 04:00:00", "2026-12-07 04:00:00"]),
        # N/step runs to the end of the field.
        (
            "0 20/15 4 * * *",
            "2026-11-21 04:00:00",
            ["2026-11-21 04:20:00", "2026-11-21 04:35:00", "2026-11-21 04:50:00"],
        ),
        ("0 0 0 29 2 *", "2026-11-21 03:00:00", ["2028-02-29 00:00:00", "2032-02-29 00:00:00", "2036-02-29 00:00:00"]),
    ],
)
def test_next_times_are_those_that_the_schedulers_rules_give(expression: str, after: str, times: list[str]) -> None:
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = cron.next_times(cron.checked(expression), start, 3)
    assert [f"{time:%Y-%m-%d %H:%M:%S}" for time in found] == times


@pytest.mark.parametrize(
    ("days", "after", "dates"),
    [
        # N/step runs to the end of the field, in the day of week to Saturday.
        ("* * 6/1", "2026-11-21", ["2026-11-28", "2026-12-05", "2026-12-12"]),
        ("* * 4/2", "2026-11-21", ["2026-11-26", "2026-11-28", "2026-12-03"]),
        ("* * thu/2", "2026-11-21", ["2026-11-26", "2026-11-28", "2026-12-03"]),
        ("* * THU/02", "2026-11-21", ["2026-11-26", "2026-11-28", "2026-12-03"]),
        ("* * 0-SUN", "2026-11-21", ["2026-11-22", "2026-11-29", "2026-12-06"]),
        ("* * mon-fri", "2026-11-21", ["2026-11-23", "2026-11-24", "2026-11-25"]),
        # A step over a range of one is that one alone.
        ("5-5/2 * *", "2026-11-21", ["2026-12-05", "2027-01-05", "2027-02-05"]),
        ("5-9/2 12 *", "2026-11-21", ["2026-12-05", "2026-12-07", "2026-12-09"]),
        ("1 JAN/6 *", "2026-11-21", ["2027-01-01", "2027-07-01", "2028-01-01"]),
        # A star anywhere in a list: both days must fit. The 1st is a Monday in February and March 2027.
        ("1 * MON,*", "2026-11-21", ["2026-12-01", "2027-01-01", "2027-02-01"]),
        ("5,*/31 * MON", "2026-11-21", ["2027-02-01", "2027-03-01", "2027-04-05"]),
        ("1 * MON,*/7", "2026-12-02", ["2027-02-01", "2027-03-01", "2027-08-01"]),
    ],
)
def test_days_are_those_of_the_schedulers_steps_and_stars(days: str, after: str, dates: list[str]) -> None:
    start = datetime.fromisoformat(f"{after} 05:00:00").replace(tzinfo=UTC)
    found = cron.next_times(cron.checked(f"0 0 4 {days}"), start, 3)
    assert [f"{time:%Y-%m-%d %H:%M}" for time in found] == [f"{date} 04:00" for date in dates]


def test_times_are_told_in_the_schedulers_zone() -> None:
    zone = cron.zone("Asia/Shanghai")
    (time,) = cron.next_times("0 30 2 * * *", datetime(2026, 11, 21, 20, 0, tzinfo=UTC).astimezone(zone), 1)
    # 20:00 UTC is 4:00 the next day in Shanghai, 8 hours ahead all year.
    assert time.isoformat() == "2026-11-23T02:30:00+08:00"
    assert time.astimezone(UTC) == datetime(2026, 11, 22, 18, 30, tzinfo=UTC)


def test_a_night_that_skips_the_hour_still_has_later_ones() -> None:
    # In Berlin 2:00 to 3:00 of 29 March 2026 does not exist.
    start = datetime(2026, 3, 29, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert cron.next_times("0 30 2 * * *", start, 1)[0].isoformat() == "2026-03-30T02:30:00+02:00"


BERLIN = ZoneInfo("Europe/Berlin")


def test_a_time_that_the_clock_leaves_out_is_left_out() -> None:
    start = datetime(2026, 3, 28, 12, 0, tzinfo=BERLIN)
    assert cron.next_times("0 30 2 * * *", start, 1)[0].isoformat() == "2026-03-30T02:30:00+02:00"


def test_a_time_that_the_clock_shows_twice_comes_twice() -> None:
    # On 25 October 2026 the clock goes back from 3:00 to 2:00.
    start = datetime(2026, 10, 24, 12, 0, tzinfo=BERLIN)
    found = [time.isoformat() for time in cron.next_times("0 0,30 2 * * *", start, 5)]
    assert found == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00",
                     "2026-10-25T02:30:00+01:00", "2026-10-26T02:00:00+01:00"]  # fmt: skip
    between = datetime(2026, 10, 25, 2, 40, tzinfo=BERLIN)
    assert cron.next_times("0 30 2 * * *", between, 1)[0].isoformat() == "2026-10-25T02:30:00+01:00"


@pytest.mark.parametrize(
    ("expression", "zone", "gap_h", "first"),
    [
        ("0 30 2 * * *", "UTC", 24, ""),
        ("0 0 4 * * 1-5", "UTC", 72, "Fri 04:00"),
        ("0 30 2 * * *", "Europe/Berlin", 47, "Sat 02:30"),  # 2:30 of 28 March 2027 does not exist
        ("0 0 4 1 * *", "UTC", 744, ""),
        ("0 */10 * * * 1-5", "UTC", 48 + 1 / 6, "Fri 23:50"),
        ("0 */5 * * 1-10 *", "UTC", 24 * 61 + 1 / 12, "Sun 23:55"),  # 31 October, behind more times than are looked at
        ("* * * * * *", "UTC", 1 / 3600, ""),
        ("0 0 4 1 1-6 *", "UTC", 24 * 214, "Tue 04:00"),  # from 1 June to the next year's January
        ("0 0 0 29 2 *", "UTC", 24 * 465, ""),  # from now on to 29 February 2028
    ],
)
def test_the_longest_gap_of_a_year_is_found(expression: str, zone: str, gap_h: float, first: str) -> None:
    after = datetime(2026, 11, 21, 0, 0, tzinfo=cron.zone(zone))
    start, end = cron.longest_gap(cron.checked(expression), after)
    assert (end.astimezone(UTC) - start.astimezone(UTC)).total_seconds() / 3600 == pytest.approx(gap_h)
    assert f"{start:%a %H:%M}".startswith(first)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 30 2 * * *", "At 02:30 every day"),
        ("0 0 4 * * 1-5", "At 04:00 on Monday through Friday"),
        ("15 0 */6 * * *", "At second 15 at minute 0 past every sixth hour"),
    ],
)
def test_an_expression_is_told_in_words(expression: str, words: str) -> None:
    assert cron.in_words(expression) == words


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("30 2 * * *", "has five fields; the scheduler takes the first for seconds .* write '0 30 2 \\* \\* \\*'"),
        ("@daily", "expected six fields, second minute hour"),
        ("", "expected six fields"),
        ("0 0 30 2 * * *", "expected six fields"),
        ("0 61 2 * * *", "bad minute"),
        ("0 30 24 * * *", "bad hour"),
        ("60 30 2 * * *", "bad second"),
        ("0 30 2 L * *", "day-of-month is 'L'"),
        ("0 30 2 * * MON#2", "day-of-week is 'MON#2'"),
        ("0 30 2 * * 7", "day-of-week is '7', expected 0 to 6: Sunday is 0"),
        ("0 30 2 * * 5-7", "day-of-week is '5-7', expected 0 to 6"),
        ("0 30 2 * * FRI-MON", "bad day-of-week"),
        ("0 30 2 * * SAT-SUN", "bad day-of-week"),
        ("0 30 2 31 2 *", "bad day-of-month"),
        ("0 30 2 0/5 * *", "bad day-of-month"),
        ("0 30 25/2 * * *", "bad hour"),
        ("0 30 2 9-5/2 * *", "bad day-of-month"),
        ("0 30 2 * * 1/0", "bad day-of-week"),
        ("0 30 2 * MAI *", "month is 'MAI'"),
    ],
)
def test_what_the_scheduler_would_refuse_or_misread_is_refused(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"cron '.*{message}"):
        cron.checked(expression)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone 'Berlin': expected a name such as"):
        cron.zone("Berlin")


def test_a_schedule_that_the_watchdog_would_not_bear_is_told() -> None:
    now = datetime(2026, 11, 21, 0, 0, tzinfo=UTC)
    assert silent_too_long("0 30 2 * * *", now, 36) == ""
    assert silent_too_long("0 0 4 * * 1-5", now, 72) == ""
    assert silent_too_long("0 0 4 * * 1-5", now, 36).startswith(
        "its longest silence is 72 h, Fri 27 Nov 2026 04:00 to Mon 30 Nov 2026 04:00; the watchdog alarms after 36 h"
    )
