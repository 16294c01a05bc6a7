import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.text.steps import steps_needed
from tests.wordmill.training.tiny import TRAIN, write_set
from wordmill.shards.loader import chosen_batch
from wordmill.shards.sets import open_sets
from wordmill.text.charset import Charset, load_charset
from wordmill.text.decoding import AttentionCodec, Codec, CtcCodec
from wordmill.training.targets import Draws, draw, encode_labels, fitting

LETTERS = Charset(name="abc", symbols="abc")
CTC, ATTENTION = CtcCodec(charset=LETTERS), AttentionCodec(charset=LETTERS)
LOWER = CtcCodec(charset=load_charset("lower36"))


def fitted(labels: list[str], codec: Codec, steps: int) -> list[str]:
    """The labels that `pack` gives a weight."""
    weights = encode_labels(labels, codec, steps, "ctc").weights
    return [label for label, weight in zip(labels, weights, strict=True) if weight]


def test_ctc_targets_are_the_characters_padded_to_the_steps() -> None:
    targets = encode_labels(["ab", "C", ""], CTC, 3, "ctc")
    assert targets.classes.dtype == targets.lengths.dtype == np.int32
    assert targets.weights.dtype == targets.forced.dtype == np.float32
    assert targets.classes.tolist() == [[1, 2, 0], [3, 0, 0], [1, 0, 0]]
    assert targets.lengths.tolist() == [2, 1, 1]
    assert targets.forced.tolist() == [1, 1, 1]


def test_a_flat_start_gives_every_letter_the_same_width_and_blanks_between() -> None:
    targets = encode_labels(["ab", "c", ""], CTC, 8, "ctc", flat=0.25)
    # Of two letters each has four frames, of which the middle two lie within 0.32 of its part from its middle.
    assert targets.frames.tolist() == [[0, 1, 1, 0, 0, 2, 2, 0], [0, 3, 3, 3, 3, 3, 3, 0], [0, 1, 1, 1, 1, 1, 1, 0]]
    assert targets.flat.tolist() == [0.25] * 3
    assert encode_labels(["abc"], CTC, 6, "ctc", flat=1.0).frames.tolist() == [[1, 1, 2, 2, 3, 3]]
    assert (targets.frames.dtype, targets.flat.dtype) == (np.int32, np.float32)


def test_attention_targets_end_with_stop_and_pad_with_go() -> None:
    targets = encode_labels(["ab", "abc", "abca", "?"], ATTENTION, 4, "cross_entropy")
    # GO 0, STOP 1, a 2, b 3, c 4; four letters and STOP are five steps, which these recognisers have not
    assert targets.classes.tolist() == [[2, 3, 1, 0], [2, 3, 4, 1], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert targets.lengths.tolist() == [3, 4, 1, 1]


@pytest.mark.parametrize(
    ("loss", "codec", "weights"),
    [
        ("ctc", CTC, [1 / 3, 1 / 3, 0.0]),  # over the samples
        ("ctc_by_length", CTC, [1 / 6, 1 / 3, 0.0]),  # the same after a division by the label's length
        ("cross_entropy", ATTENTION, [1 / 5, 1 / 5, 0.0]),  # over 3 + 2 characters, STOP among them
        ("cross_entropy_unmasked", ATTENTION, [1 / 3, 1 / 3, 0.0]),
    ],
)
def test_weights_make_the_mean_that_the_recipe_names(
    loss: str, codec: CtcCodec | AttentionCodec, weights: list[float]
) -> None:
    assert encode_labels(["ab", "C", ""], codec, 3, loss).weights == pytest.approx(weights)


def test_without_a_mask_every_step_counts() -> None:
    assert encode_labels(["ab", "C"], ATTENTION, 5, "cross_entropy_unmasked").lengths.tolist() == [5, 5]


def test_a_batch_in_which_nothing_fits_has_no_weight() -> None:
    assert encode_labels(["", "!"], ATTENTION, 5, "cross_entropy").weights.tolist() == [0.0, 0.0]


def test_draws_travel_with_the_targets() -> None:
    drawn = Draws(forced=np.array([0, 1, 1], np.float32), seeds=np.array([-5, 7, 9], np.int32))
    targets = encode_labels(["a", "b"], ATTENTION, 3, "cross_entropy", drawn[1:])
    assert (targets.forced.tolist(), targets.seeds.tolist()) == ([1.0, 1.0], [7, 9])
    assert (targets.forced.dtype, targets.seeds.dtype) == (np.float32, np.int32)
    assert encode_labels(["a", "b"], ATTENTION, 3, "cross_entropy").seeds.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("loss", "codec", "counted"),
    [
        ("ctc", CTC, 3),
        ("ctc_by_length", CTC, 3),
        ("cross_entropy", ATTENTION, 9),
        ("cross_entropy_unmasked", ATTENTION, 3),
    ],
)
def test_what_a_part_counts_makes_the_mean_of_all_parts(loss: str, codec: Codec, counted: int) -> None:
    labels = ["ab", "C", "abc"]
    whole = encode_labels(labels, codec, 4, loss)
    assert whole.counted == counted
    for cut in (1, 2):
        parts = [encode_labels(labels[:cut], codec, 4, loss), encode_labels(labels[cut:], codec, 4, loss)]
        weights = np.concatenate([part.counted * part.weights for part in parts]) / whole.counted
        assert weights == pytest.approx(whole.weights)


def test_a_label_fits_when_its_characters_and_the_blanks_between_equal_ones_fit() -> None:
    assert fitted(["abc", "aab", "xyz", "abcc"], CTC, 3) == ["abc"]  # a blank must part the two a
    assert fitted(["abc", "aab", "xyz", "aaa", "abca"], CTC, 4) == ["abc", "aab", "abca"]


def test_an_attention_decoder_needs_a_step_for_stop() -> None:
    assert fitted(["aab", "ab", "?"], ATTENTION, 4) == ["aab", "ab"]
    assert fitted(["aab", "ab", "?"], ATTENTION, 3) == ["ab"]


@pytest.mark.parametrize("codec", [LOWER, AttentionCodec(charset=LOWER.charset)])
def test_batches_are_packed_as_each_label_would_be_by_itself(codec: Codec) -> None:
    rng = np.random.default_rng(2)
    labels = ["".join(rng.choice([*"aabBc019-!é中"], rng.integers(0, 14))) for _ in range(500)]
    targets = encode_labels(labels, codec, 9, "ctc")
    end = [AttentionCodec.STOP] if isinstance(codec, AttentionCodec) else []
    for label, classes, length, weight in zip(labels, targets.classes, targets.lengths, targets.weights, strict=True):
        fits = bool(codec.encode(label)) and steps_needed(codec, label) <= 9
        row = codec.encode(label) + end if fits else [1]
        assert (classes.tolist(), length, weight > 0) == (row + [0] * (9 - len(row)), len(row), fits)


def test_labels_with_nul_are_refused() -> None:
    with pytest.raises(ValueError, match="2 texts have 1 NUL characters, expected none"):
        encode_labels(["a\0b", "c"], CTC, 3, "ctc")


def test_training_leaves_out_labels_that_do_not_fit(tmp_path: Path) -> None:
    shards = open_sets([write_set(tmp_path / "s", 30, ("cat", "!", "aaaa"))])
    assert fitting(shards, LOWER, 5).samples == 10
    assert fitting(shards, LOWER, 7).samples == 20
    with pytest.raises(ValueError, match="none of the 30 training labels fits"):
        fitting(shards, LOWER, 2)


@pytest.mark.parametrize("codec", [LOWER, AttentionCodec(charset=LOWER.charset)])
@pytest.mark.parametrize("steps", [1, 3, 4, 5, 25])
def test_labels_are_left_out_by_the_index_as_they_would_be_by_themselves(
    codec: Codec, steps: int, tmp_path: Path
) -> None:
    labels = ("a", "", "Ab!", "aab", "abcd", "aaaa", "!?", "x" * 300)
    shards = open_sets([write_set(tmp_path / "s", 24, labels)])
    expected = [label for label in labels if codec.encode(label) and steps_needed(codec, label) <= steps] * 3
    if expected:
        kept = fitting(shards, codec, steps)
        assert chosen_batch(kept, np.arange(kept.samples)).labels == expected
    else:
        with pytest.raises(ValueError, match="none of the 24"):
            fitting(shards, codec, steps)


def test_more_steps_than_an_index_can_count_are_refused(tmp_path: Path) -> None:
    shards = open_sets([write_set(tmp_path / "s", 8)])
    with pytest.raises(ValueError, match="255 steps: an index of shards tells labels apart up to 254"):
        fitting(shards, LOWER, 255)


def test_coins_fall_at_the_recipes_rate_and_differ_by_step() -> None:
    half = dataclasses.replace(TRAIN, teacher_forcing=0.5, global_batch=10_000)
    tossed = draw(half, 3, slice(None)).forced
    assert set(tossed.tolist()) == {0.0, 1.0}
    assert abs(tossed.mean() - 0.5) < 0.02  # 4 standard deviations
    assert 0.45 < (tossed == draw(half, 4, slice(None)).forced).mean() < 0.55
    assert 0.45 < (tossed == draw(dataclasses.replace(half, seed=8), 3, slice(None)).forced).mean() < 0.55
    assert draw(TRAIN, 1, slice(0, 9)).forced.tolist() == [1.0] * 9
    assert draw(dataclasses.replace(TRAIN, teacher_forcing=0.0), 1, slice(0, 9)).forced.tolist() == [0.0] * 9


def test_seeds_are_all_over_their_range_and_no_two_alike() -> None:
    many = dataclasses.replace(TRAIN, global_batch=10_000)
    seeds = np.concatenate([draw(many, step, slice(None)).seeds for step in (1, 2)])
    assert seeds.dtype == np.int32
    assert len(np.unique(seeds)) > 19_990  # of 2^32, 20,000 have 0.05 pairs that are alike
    assert np.abs(np.histogram(seeds, 16, (-(2.0**31), 2.0**31))[0] - 1250).max() < 180  # 5 standard deviations
    assert abs(np.corrcoef(seeds[:-1], seeds[1:])[0, 1]) < 0.04


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_what_is_drawn_for_a_row_of_the_global_batch_is_the_same_for_any_number_of_processes(processes: int) -> None:
    train, size = dataclasses.replace(TRAIN, teacher_forcing=0.5), TRAIN.global_batch // processes
    whole = draw(train, 5, slice(0, TRAIN.global_batch))
    shares = [draw(train, 5, slice(rank * size, (rank + 1) * size)) for rank in range(processes)]
    assert np.concatenate([share.forced for share in shares]).tolist() == whole.forced.tolist()
    assert np.concatenate([share.seeds for share in shares]).tolist() == whole.seeds.tolist()


def test_draws_are_those_of_the_runs_before() -> None:
    """A run that goes on must draw what it would have drawn, in whatever version of NumPy."""
    train = dataclasses.replace(TRAIN, teacher_forcing=0.5, global_batch=4)
    drawn = draw(train, 3, slice(None))
    assert drawn.forced.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert drawn.seeds.tolist() == [-604963723, 54545086, 92215954, -1132833365]


def test_draws_have_nothing_to_do_with_the_order_of_the_data() -> None:
    words = np.random.Philox(np.random.SeedSequence((TRAIN.seed, 1, 0))).random_raw(32)  # the loader's for epoch 1
    assert not set(words.astype(np.uint32).view(np.int32).tolist()) & set(draw(TRAIN, 1, slice(None)).seeds.tolist())
