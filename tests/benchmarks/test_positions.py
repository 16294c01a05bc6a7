import pytest

from benchmarks.positions import Drawn, overlap, watched
from wordmill.synth.renderer import Renderer, SynthSpec


def test_an_overlap_is_what_is_common_of_all() -> None:
    assert overlap((0.0, 0.5), (0.25, 0.75)) == pytest.approx(1 / 3)
    assert overlap((0.0, 0.2), (0.3, 0.4)) == 0.0
    assert overlap((0.1, 0.3), (0.1, 0.3)) == pytest.approx(1.0)


def test_letters_are_found_where_they_are_drawn() -> None:
    spec = SynthSpec(seed=3, count=40, fonts="test", words="test", difficulty="easy")
    renderer, plain = Renderer(spec), Renderer(spec)
    for number in range(40):
        drawn = Drawn()
        with watched(drawn):
            image, label = renderer.sample(number)
        assert (image == plain.sample(number)[0]).all()  # watching changes nothing
        places = drawn.places()
        assert len(places) == len(label)
        assert places == sorted(places)
        assert 0 < places[0] <= places[-1] < 1
        if len(label) > 3:  # the word fills its picture
            assert places[0] < 0.45
            assert places[-1] > 0.55
