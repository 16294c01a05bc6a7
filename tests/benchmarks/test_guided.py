import pytest

from benchmarks import guided


def test_both_trainings_are_of_one_recipe_but_for_the_head() -> None:
    plain, told = guided.recipe_of("quickstart", 0.0, 3), guided.recipe_of("quickstart", 0.5, 3)
    assert (plain.train.guide, told.train.guide) == (0.0, 0.5)
    assert plain.model == told.model
    assert plain.data == told.data
    assert plain.data.streamed
    assert plain.train.seed == told.train.seed == 3


def test_the_one_with_the_head_has_as_many_steps_fewer_as_they_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read_after(name: str, guide: float, seed: int, steps: int, quick: bool) -> tuple[float, float]:
        asked.append((guide, seed, steps))
        return 0.5 + guide / 10 * seed, steps * (0.8 if guide else 0.5)

    monkeypatch.setattr(guided, "step_seconds", lambda *_: (0.5, 0.8))
    monkeypatch.setattr(guided, "read_after", read_after)
    options = type(
        "options", (), {"recipe": "quickstart", "weight": 1.0, "quick": False, "minutes": 2.0, "seeds": [1, 2]}
    )
    found = guided.compare(options)
    rows = {row["name"]: row["value"] for row in found}
    assert asked == [(0.0, 1, 240), (1.0, 1, 150), (0.0, 2, 240), (1.0, 2, 150)]
    assert rows["quickstart, its cost"] == 60
    assert [row["value"] for row in found if row["unit"] == "s CPU"] == [120, 120, 120, 120]
    assert rows["gain, mean of the seeds"] == 15
    assert rows["gain, least to most"] == 10
