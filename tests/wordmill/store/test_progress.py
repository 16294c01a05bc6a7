import pytest

from wordmill.store.progress import Progress, duration


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (334, "5:34"), (3661, "1:01:01")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_says_how_far_how_fast_and_how_long_still() -> None:
    progress = Progress("train", 200_000, "images", every_s=3600)
    progress.update(50_000)
    # 50,000 in 100 s are 500/s, the other 150,000 take 300 s.
    assert progress.line(100.0, "loss 1.5") == "train  50,000/200,000 images  25.0 %  500 images/s  5:00 left  loss 1.5"


def test_what_was_done_before_the_clock_started_counts_as_done_but_not_as_fast() -> None:
    progress = Progress("train", 1000, "images", every_s=3600, already=400)
    progress.update(600)
    # 200 in 10 s are 20/s, the other 400 take 20 s.
    assert progress.line(10.0) == "train  600/1,000 images  60.0 %  20 images/s  0:20 left"


def test_the_first_line_knows_no_rate() -> None:
    assert "time left unknown" in Progress("fetch", 10, "files").line(0.0)


def test_the_last_update_is_always_shown(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("fetch", 2, "files", every_s=3600)
    progress.update(1)
    assert capsys.readouterr().out == ""
    progress.update(2)
    assert "2/2 files  100.0 %" in capsys.readouterr().out


def test_of_what_no_total_is_known_only_the_count_is_shown() -> None:
    progress = Progress("fetch", 0, "MB", every_s=3600)
    progress.update(50)
    assert progress.line(10.0) == "fetch  50 MB  5 MB/s"
