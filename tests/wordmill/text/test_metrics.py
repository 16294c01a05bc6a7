import math

import numpy as np
import pytest
from scipy.stats import binomtest

from components.report.published import published
from wordmill.text import metrics

PAIRS = [("tree", "tree"), ("cat", "cats"), ("dog", "abc"), ("", "it")]  # reading, label


def test_score_of_hand_worked_words():
    # distances: 0, 1 of 4, 3 of 3, 2 of 2 -> sum 0 + 0.25 + 1 + 1 = 2.25
    found = metrics.score_pairs(PAIRS)
    assert (found.total, found.correct, found.accuracy) == (4, 1, 0.25)
    assert found.ned == pytest.approx(1 - 2.25 / 4)
    # common subsequences: 4, 3, 0, 0; characters: 8, 7, 6, 2
    assert found.character_precision == pytest.approx(2 * 7 / 23)


def test_common_characters_count_in_their_order_alone():
    # of "saint" and "st ani" the longest common subsequences have 3 characters, such as s, a, n
    assert metrics.score_pairs([("st ani", "saint")]).character_precision == pytest.approx(2 * 3 / 11)


def test_an_empty_label_is_met_by_an_empty_prediction_alone():
    found = metrics.score_pairs([("", ""), ("x", "")])
    assert (found.correct, found.ned, found.character_precision) == (1, 0.5, 0.0)


def test_words_without_any_character_are_read_precisely():
    assert metrics.score_pairs([("", "")]).character_precision == 1.0


def test_scoring_nothing_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        metrics.score_pairs([])


def test_accuracy_by_length_goes_by_the_label():
    found = metrics.by_length([*PAIRS, ("bird", "bird"), ("a", "b")])
    assert [(row.length, row.total, row.correct) for row in found] == [(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 3, 2)]


def test_confused_characters_by_hand():
    found = metrics.confusion([
        ("1ist", "list"), ("1eft", "left"),  # 1 for l, twice
        ("cat", "cats"),  # s is left out
        ("moon!", "moon"), ("o!k", "ok"),  # ! is put in, twice
        ("right", "right"),
    ])  # fmt: skip
    assert [(row.truth, row.read, row.count) for row in found] == [("", "!", 2), ("l", "1", 2), ("s", "", 1)]


def test_as_many_slips_as_the_words_are_apart():
    found = metrics.confusion([("sitting", "kitten"), ("", "ab"), ("ba", "ab")])
    assert sum(row.count for row in found) == 3 + 2 + 2
    assert metrics.confusion([("same", "same")]) == []


def test_calibration_by_hand():
    # 0.9 lies in ]13/15, 14/15], 1.0 in the last bin, 0 in the first; 1/15 still belongs to the first
    found = metrics.calibration([(0.9, True), (0.9, False), (0.92, True), (1.0, True), (0.0, False), (1 / 15, True)])
    bins = found.bins
    assert [row.count for row in bins] == [2, *[0] * 12, 3, 1]
    assert (bins[13].low, bins[13].high) == (13 / 15, 14 / 15)
    assert bins[13].confidence == pytest.approx(2.72 / 3)
    assert bins[13].accuracy == pytest.approx(2 / 3)
    assert (bins[0].confidence, bins[0].accuracy) == (pytest.approx(1 / 30), 0.5)
    assert (bins[5].confidence, bins[5].accuracy) == (None, None)
    # gaps: |2 - 2.72| in bin 13, |1 - 1| in the last, |1 - 1/15| in the first, over 6 samples
    assert found.ece == pytest.approx((0.72 + 14 / 15) / 6)


def test_every_confidence_falls_into_the_bin_that_holds_it():
    edges = [number / 15 for number in range(1, 16)]
    for number, edge in enumerate(edges):
        assert metrics.calibration([(edge, True)]).bins[number].count == 1
        assert metrics.calibration([(np.nextafter(edge, 0), True)]).bins[number].count == 1
    assert metrics.calibration([(0.4, True)] * 7).ece == pytest.approx(0.6)


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


TOTALS = [860, 867, 857, 1015, 1811, 2077, 3000, 647, 645, 288]


@pytest.mark.parametrize(
    ("correct", "mean", "weighted"),
    [
        ([813, 815, 790, 921, 1303, 1372, 2523, 543, 473, 200], 82.03, 80.82),  # MindOCR's CRNN with VGG7
        ([812, 817, 800, 934, 1375, 1457, 2632, 559, 492, 213], 84.45, 83.62),  # its CRNN with ResNet34
        ([819, 818, 801, 941, 1310, 1378, 2630, 567, 476, 220], 83.99, 82.54),  # PaddleOCR's, as MindOCR measured it
        ([818, 820, 808, 941, 1364, 1444, 2645, 565, 509, 219], 85.20, 83.97),  # its RARE, printed as 85.19
    ],
)
def test_the_published_means_come_from_the_counts_behind_them(correct, mean, weighted):
    shares = [c / n for c, n in zip(correct, TOTALS, strict=True)]
    assert round(100 * metrics.plain_mean(shares), 2) == mean
    assert round(100 * metrics.weighted_mean(correct, TOTALS), 2) == weighted


@pytest.mark.parametrize("recipe", ["crnn_vgg7", "crnn_r34", "rare_r34"])
def test_the_published_accuracies_are_those_counts(recipe):
    cut = {"rare_r34": ["IC15_1811"]}  # printed with two digits cut off, not rounded
    rows = {
        "crnn_vgg7": [813, 815, 790, 921, 1303, 1372, 2523, 543, 473, 200],
        "crnn_r34": [812, 817, 800, 934, 1375, 1457, 2632, 559, 492, 213],
        "rare_r34": [818, 820, 808, 941, 1364, 1444, 2645, 565, 509, 219],
    }
    printed = published(recipe).accuracy
    assert len(printed) == 10
    for (name, percent), count, total in zip(printed.items(), rows[recipe], TOTALS, strict=True):
        if name in cut.get(recipe, []):
            assert math.floor(10_000 * count / total) / 100 == percent
        else:
            assert round(100 * count / total, 2) == percent
