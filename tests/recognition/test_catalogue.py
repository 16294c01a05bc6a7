from pathlib import Path

import pytest

from components.recognition.catalogue import Entry, from_text, load_catalogue, select, to_text

DATASETS = Path(__file__).resolve().parents[2] / "pipelines" / "datasets.yaml"
WORDS = "words: {source: 'file:///data/words.zip', reader: label_file, labels: labels.txt, samples: 3, licence: CC0}"


def catalogue(tmp_path: Path, text: str, name: str = "own.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_entry_is_read(tmp_path: Path) -> None:
    assert load_catalogue([catalogue(tmp_path, WORDS)]) == {
        "words": Entry(
            source="file:///data/words.zip", reader="label_file", labels="labels.txt", samples=3, licence="CC0"
        )
    }


def test_the_built_in_counts_are_the_published_ones() -> None:
    built_in = load_catalogue([DATASETS])
    training = ["mj_train", "mj_valid", "mj_test", "st"]
    assert sum(built_in[name].samples for name in training) == 14_442_049
    benchmarks = ["IC03_860", "IC03_867", "IC13_857", "IC13_1015", "IC15_1811", "IC15_2077", "IIIT5k_3000"]
    assert sum(built_in[name].samples for name in [*benchmarks, "SVT", "SVTP", "CUTE80"]) == 12_067
    assert built_in["dtrb_validation"].samples == 6_992
    assert [name for name, entry in built_in.items() if entry.source == "manual:" and not entry.homepage] == []


def test_the_splits_of_the_chinese_benchmark_sum_up_to_the_published_totals() -> None:
    counts = {name: entry.samples for name, entry in load_catalogue([DATASETS]).items() if name.startswith("chinese_")}
    totals = {"scene": 636_455, "web": 140_589, "document": 500_000}
    assert len(counts) == 9
    for kind, total in totals.items():
        train, val, test = (counts[f"chinese_{kind}_{split}"] for split in ("train", "val", "test"))
        assert train + val + test == total
        assert train == pytest.approx(0.8 * total, abs=1)
        assert val == pytest.approx(test, abs=1)


def test_data_sets_of_picture_files_say_the_form_of_their_labels() -> None:
    built_in = load_catalogue([DATASETS])
    files = {name: (entry.label_format, entry.samples) for name, entry in built_in.items() if entry.labels}
    assert files == {
        "fsns_train": ("tab", 1_044_868),
        "fsns_validation": ("tab", 16_150),
        "fsns_test": ("tab", 20_404),
        "icdar15_train": ("icdar", 4_468),
        "icdar15_test": ("icdar", 2_077),
    }


def test_rendered_sets_are_all_different_and_say_their_count() -> None:
    rendered = [entry for entry in load_catalogue([DATASETS]).values() if entry.reader == "synth"]
    assert len({entry.source for entry in rendered}) == len(rendered) == 4
    assert all(f"count={entry.samples}&" in entry.source for entry in rendered)


def test_a_later_file_adds_data_sets(tmp_path: Path) -> None:
    assert set(load_catalogue([DATASETS, catalogue(tmp_path, WORDS)])) == {*load_catalogue([DATASETS]), "words"}


def test_a_name_in_two_files_is_refused_by_both(tmp_path: Path) -> None:
    paths = [catalogue(tmp_path, WORDS, "one.yaml"), catalogue(tmp_path, WORDS, "two.yaml")]
    with pytest.raises(ValueError, match=r"'words' stands in .*one\.yaml and again in .*two\.yaml"):
        load_catalogue(paths)


def test_a_later_file_gives_a_manual_data_set_its_source(tmp_path: Path) -> None:
    own = catalogue(tmp_path, "SVT: {source: 'file:///data/SVT'}")
    entry = load_catalogue([DATASETS, own])["SVT"]
    assert (entry.source, entry.reader, entry.samples) == ("file:///data/SVT", "lmdb", 647)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("samples: 3", "samples: 0"), r"own\.yaml: words\.samples: found 0, expected at least 1"),
        (("samples: 3", "smaples: 3"), "unknown key 'smaples': did you mean 'samples'"),
        (("file://", "ftp://"), r"words\.source: found 'ftp:///data/words\.zip', expected a URI of one of file, http"),
        ((", labels: labels.txt", ""), r"words\.labels: found '' with reader label_file"),
        (("reader: label_file", "reader: lmdb"), r"words\.labels: found 'labels\.txt' with reader lmdb"),
        (("reader: label_file", "reader: synth"), r"words\.reader: found 'synth' with a file: source"),
        (("licence: CC0", "licence: CC0, sha256: ABC"), r"words\.sha256: found 'ABC', expected 64"),
        ((", licence: CC0", ""), "key 'licence' is missing"),
        (("words:", "my words:"), "my words: a data set's name"),
    ],
)
def test_wrong_entries_are_refused_by_file_and_key(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_catalogue([catalogue(tmp_path, WORDS.replace(*change))])


def test_an_entry_must_be_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"own\.yaml: words: expected a mapping, found str"):
        load_catalogue([catalogue(tmp_path, "words: file:///data")])


def test_selecting_keeps_the_order_and_hints_at_typing_errors() -> None:
    built_in = load_catalogue([DATASETS])
    assert list(select(built_in, ["SVTP", "SVT", "SVTP"])) == ["SVTP", "SVT"]
    with pytest.raises(ValueError, match="unknown data set 'CUTE8': did you mean 'CUTE80'"):
        select(built_in, ["SVT", "CUTE8"])


def test_entries_survive_the_way_through_text() -> None:
    chosen = select(load_catalogue([DATASETS]), ["SVT", "rendered_val"])
    assert from_text(to_text(chosen)) == chosen


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("{}", "at least one"), ("[1]", "a mapping")])
def test_text_that_holds_no_entries_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_text(text)
