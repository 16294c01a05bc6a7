import json
from pathlib import Path

import pytest

from wordmill.recipe.catalogue import Entry, from_text, load_catalogue, redirect, select, to_text
from wordmill.sources.locating import numbered

DATASETS = Path(__file__).resolve().parents[3] / "pipelines" / "datasets.yaml"
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
    manual = [entry for entry in built_in.values() if entry.source.startswith("manual:")]
    assert len(manual) == 36
    assert all(entry.homepage in entry.steps for entry in manual)
    assert all(entry.citation and entry.licence for entry in built_in.values() if entry.reader != "synth")


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
    assert files == {"icdar15_train": ("icdar", 4_468), "icdar15_test": ("icdar", 2_077)}


def test_the_street_signs_are_numbered_files() -> None:
    built_in = load_catalogue([DATASETS])
    counts = {"train": (512, 1_044_868), "validation": (64, 16_150), "test": (64, 20_404)}
    for split, (files, samples) in counts.items():
        entry, base = built_in[f"fsns_{split}"], f"https://download.tensorflow.org/data/fsns-20160927/{split}/{split}"
        addresses = numbered(entry.source)
        assert (len(addresses), entry.samples, entry.reader) == (files, samples, "fsns")
        assert addresses[0] == f"{base}-00000-of-{files:05}"
        assert addresses[-1] == f"{base}-{files - 1:05}-of-{files:05}"


def test_the_sets_of_one_archive_each_name_their_folder() -> None:
    shared = [entry for entry in load_catalogue([DATASETS]).values() if entry.archive == "data_lmdb_release.zip"]
    assert len({entry.inside for entry in shared}) == len(shared) == 15
    assert all(entry.inside for entry in shared)


def test_rendered_sets_are_all_different_and_say_their_count() -> None:
    rendered = [entry for entry in load_catalogue([DATASETS]).values() if entry.reader == "synth"]
    assert len({entry.source for entry in rendered}) == len(rendered) == 13
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


def test_a_place_of_its_own_holds_a_data_set_alone(tmp_path: Path) -> None:
    own = catalogue(tmp_path, "SVT: {source: 's3://bucket/svt.zip'}")
    assert load_catalogue([DATASETS])["SVT"].inside == "SVT"
    assert load_catalogue([DATASETS, own])["SVT"].inside == ""
    entry = redirect(load_catalogue([DATASETS]), ["SVT=/data/my sets/svt"])["SVT"]
    assert (entry.source, entry.inside, entry.samples) == ("file:///data/my%20sets/svt", "", 647)


def test_a_place_of_an_archive_holds_all_its_data_sets() -> None:
    before = load_catalogue([DATASETS])
    after = redirect(before, ["data_lmdb_release.zip=s3://bucket/all.zip", "st=/data/st"])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name, entry in before.items() if entry.archive == "data_lmdb_release.zip"}
    assert (after["SVT"].source, after["SVT"].inside) == ("s3://bucket/all.zip", "SVT")
    assert (after["st"].source, after["st"].inside) == ("file:///data/st", "")


def test_a_relative_place_counts_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = redirect({"words": Entry(source="manual:", reader="lmdb", samples=1, licence="x")}, ["words=a/b"])["words"]
    assert entry.source == f"file://{tmp_path}/a/b"


def test_a_digest_belongs_to_the_place_that_it_was_published_for() -> None:
    known = Entry(source="https://a/b.zip", reader="lmdb", samples=1, licence="x", sha256="0" * 64)
    shared = Entry(source="manual:all.zip", reader="lmdb", samples=1, licence="x", sha256="1" * 64)
    changed = redirect({"known": known, "shared": shared}, ["known=/data/b", "all.zip=/data/all.zip"])
    assert (changed["known"].sha256, changed["shared"].sha256) == ("", "1" * 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SVT", "--from 'SVT': expected NAME=PLACE such as mj_train=/data/mj"),
        ("SVT=", "--from 'SVT=': expected NAME=PLACE"),
        ("SVTT=/x", "--from 'SVTT=/x': unknown data set 'SVTT': did you mean 'SVT'"),
        ("SVT=ftp://x/y", "--from 'SVT=ftp://x/y': SVT.source: found 'ftp://x/y', expected a URI of one of file, http"),
        ("rendered_val=/x", "rendered_val.reader: found 'synth' with a file: source"),
    ],
)
def test_wrong_places_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        redirect(load_catalogue([DATASETS]), [text])


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


@pytest.mark.parametrize(
    "source", ["file://data/words.zip", "file://words.zip", "file:words.zip", "file://./words.zip"]
)
def test_a_relative_local_address_is_refused(source: str) -> None:
    text = json.dumps({"words": {"source": source, "reader": "lmdb", "samples": 1, "licence": "x"}})
    with pytest.raises(
        ValueError, match=f"^sources: words.source: '{source}': expected an absolute path behind file://"
    ):
        from_text(text)
