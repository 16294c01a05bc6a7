from benchmarks import drift


def test_nights_without_a_change_are_silent_and_a_shift_of_word_length_is_told() -> None:
    """A few of the nights that the whole simulation has."""
    [quiet] = drift.rows_of(drift.unchanged, "unchanged", 3)
    assert (quiet["value"], quiet["met"]) == (0.0, True)
    [loud] = drift.rows_of(drift.longer, "longer", 2)
    assert (loud["value"], loud["met"]) == (100.0, True)


def test_a_fifth_longer_is_a_fifth_more_characters() -> None:
    generator = drift.np.random.default_rng(0)
    lengths = generator.integers(1, 9, 100_000)
    assert abs(drift.longer(generator, lengths).mean() / lengths.mean() - 1.2) < 0.005
    assert abs(drift.fifth_longer(generator, lengths).mean() - lengths.mean() - 0.2) < 0.005
