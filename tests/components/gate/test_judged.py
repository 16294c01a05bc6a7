from components.gate.judged import add_measurements, keep_words, measurements_of, words_of
from wordmill.store.storage import Store
from wordmill.store.tracking import Version


def version(**tags: str) -> Version:
    return Version(version="1", source="", tags={f"wordmill.{name}": value for name, value in tags.items()})


def test_what_a_model_was_measured_on_stays_known(store: Store) -> None:
    add_measurements(store, "train/a", ["evaluate/x", "evaluate/y"])
    add_measurements(store, "train/a", ["evaluate/y", "evaluate/z"])
    add_measurements(store, "train/b", ["evaluate/b"])
    assert measurements_of(store, version(model="train/a")) == ["evaluate/x", "evaluate/y", "evaluate/z"]


def test_a_model_that_older_code_has_registered_is_known_by_its_tags(store: Store) -> None:
    old = version(model="train/a", evaluations='["evaluate/x", "evaluate/y"]', gate="no champion yet: it is good")
    assert measurements_of(store, old) == ["evaluate/x", "evaluate/y"]
    assert words_of(store, "wordmill-x", old) == "no champion yet: it is good"
    add_measurements(store, "train/a", ["evaluate/y", "evaluate/z"])
    assert measurements_of(store, old) == ["evaluate/x", "evaluate/y", "evaluate/z"]


def test_each_recipes_gate_has_its_words_on_a_model(store: Store) -> None:
    keep_words(store, "wordmill-x", "train/a", "worse by a point")
    add_measurements(store, "train/a", ["evaluate/x"])
    keep_words(store, "wordmill-y", "train/a", "no champion yet")
    found = version(model="train/a", gate="refused")
    assert [words_of(store, name, found) for name in ("wordmill-x", "wordmill-y", "wordmill-z")] == [
        "worse by a point", "no champion yet", "refused",
    ]  # fmt: skip
    assert measurements_of(store, found) == ["evaluate/x"]


def test_a_version_that_says_nothing_is_nobodys(store: Store) -> None:
    assert measurements_of(store, version()) == []
    assert words_of(store, "wordmill-x", version()) == "no reason is known"
