import pytest
from scipy.stats import binomtest

from components.recognition import metrics
from components.recognition.charset import Charset, load_charset

LOWER36 = load_charset("lower36")
CASED = Charset(name="cased", symbols="abAB")


@pytest.mark.parametrize(
    ("prediction", "label", "charset", "expected"),
    [
        ("hello", "Hello!", LOWER36, ("hello", "hello")),  # the label loses what cannot be written
        ("hel-lo", "hello", LOWER36, ("hel-lo", "hello")),  # the prediction loses nothing but spaces
        ("a b", " A B ", LOWER36, ("ab", "ab")),
        ("aB", "Ab", CASED, ("aB", "Ab")),  # a charset with capitals keeps the case
    ],
)
def test_texts_are_compared_as_recmetric_does(prediction, label, charset, expected):
    assert metrics.comparable(prediction, label, charset) == expected
    assert metrics.is_correct(prediction, label, charset) is (expected[0] == expected[1])


def test_score_of_hand_worked_words():
    # distances: 0, 1 of 4 (cat/cats), 3 of 3 (dog/abc), 2 of 2 (""/it) -> sum 0 + 0.25 + 1 + 1 = 2.25
    found = metrics.score(["Tree", "cat", "dog", ""], ["tree", "cats", "abc", "IT"], LOWER36)
    assert (found.total, found.correct, found.accuracy) == (4, 1, 0.25)
    assert found.ned == pytest.approx(1 - 2.25 / 4)


def test_an_empty_label_is_met_by_an_empty_prediction_alone():
    found = metrics.score(["", "x"], ["?!", "?!"], LOWER36)
    assert (found.correct, found.ned) == (1, 0.5)


def test_scoring_nothing_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        metrics.score([], [], LOWER36)


@pytest.mark.parametrize("length", [(1, 2), (2, 1)])
def test_unequal_lengths_are_refused(length):
    with pytest.raises(ValueError, match="zip"):
        metrics.score(["a"] * length[0], ["a"] * length[1], LOWER36)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998 (Stat Med 17, 857-872), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(correct, total, low, high):
    assert metrics.wilson_interval(correct, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_interval_stays_within_bounds():
    assert metrics.wilson_interval(20, 20)[1] == pytest.approx(1.0, abs=1e-15)
    assert metrics.wilson_interval(0, 3)[0] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (0, 5, 2 / 32), (1, 5, 14 / 64), (3, 3, 1.0)])
def test_mcnemar_by_hand(gained, lost, p):
    assert metrics.mcnemar_exact(gained, lost) == pytest.approx(p)
    assert metrics.mcnemar_exact(lost, gained) == pytest.approx(p)


def test_mcnemar_agrees_with_scipy_for_large_counts():
    for gained, lost in [(700, 800), (1400, 1601), (40, 2500)]:
        expected = binomtest(gained, gained + lost, 0.5).pvalue
        assert metrics.mcnemar_exact(gained, lost) == pytest.approx(expected, rel=1e-6)


def test_means_of_the_published_row():
    # MindOCR's published CRNN-VGG7 counts on the ten benchmarks: 82.03 % plain, 80.82 % over all samples
    correct = [813, 815, 790, 921, 1303, 1372, 2523, 543, 473, 200]
    totals = [860, 867, 857, 1015, 1811, 2077, 3000, 647, 645, 288]
    shares = [c / n for c, n in zip(correct, totals, strict=True)]
    assert metrics.plain_mean(shares) == pytest.approx(0.820268, abs=5e-7)
    assert metrics.weighted_mean(correct, totals) == pytest.approx(0.8082, abs=5e-5)
