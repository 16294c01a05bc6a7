from pathlib import Path

import lmdb
import numpy as np
import pytest

from components.recognition.catalogue import Entry
from components.recognition.readers import open_reader
from components.recognition.synth import SynthSpec, render


def label_file(form: str = "space", labels: str = "labels.txt") -> Entry:
    fields = {"source": "file:///x", "reader": "label_file", "samples": 1, "licence": "CC0"}
    return Entry(**fields, labels=labels, label_format=form)


def write(root: Path, text: str | bytes, labels: str = "labels.txt") -> None:
    path = root / labels
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name in ("a.png", "b.png"):
        (root / "train").mkdir(exist_ok=True)
        (root / "train" / name).write_bytes(name.encode())


def read(root: Path, entry: Entry) -> list[tuple[bytes, str, str]]:
    reader = open_reader(entry, root)
    return [(bytes(s.image), s.label, s.problem) for s in reader.read(0, len(reader))]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("space", "train/a.png You & me\ntrain/b.png Café\n"),
        ("tab", "train/a.png\tYou & me\ntrain/b.png\tCafé\n"),
        ("icdar", 'train/a.png, "You & me"\ntrain/b.png, "Café"\n'),
    ],
)
@pytest.mark.parametrize("dress", ["plain", "bom", "crlf", "no newline at the end", "blank lines"])
def test_label_files_of_every_form(form: str, text: str, dress: str, tmp_path: Path) -> None:
    dressed = {
        "plain": text.encode(),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
        "no newline at the end": text.rstrip().encode(),
        "blank lines": text.replace("\n", "\n\n").encode(),
    }
    write(tmp_path, dressed[dress])
    assert read(tmp_path, label_file(form)) == [(b"a.png", "You & me", ""), (b"b.png", "Café", "")]


@pytest.mark.parametrize(
    ("line", "label"),
    [
        (r'train/a.png, "say \"yes\""', 'say "yes"'),
        ('train/a.png, "50", 2"', '50", 2'),
        (r'train/a.png, "C:\\dir"', r"C:\dir"),
        ('train/a.png,"tight"', "tight"),
        ('train/a.png, "1,000"', "1,000"),
    ],
)
def test_icdar_labels_may_hold_quotes_and_commas(line: str, label: str, tmp_path: Path) -> None:
    write(tmp_path, line)
    assert read(tmp_path, label_file("icdar")) == [(b"a.png", label, "")]


def test_a_tab_separated_path_may_hold_spaces(tmp_path: Path) -> None:
    write(tmp_path, "my a.png\tword\n")
    (tmp_path / "my a.png").write_bytes(b"spaced")
    assert read(tmp_path, label_file("tab")) == [(b"spaced", "word", "")]


def test_a_label_is_not_cut_at_unicode_line_ends(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png one\u2028two\x0bthree\n")
    assert read(tmp_path, label_file()) == [(b"a.png", "one\u2028two\x0bthree", "")]


@pytest.mark.parametrize(
    ("form", "line"), [("space", "train/b.png"), ("tab", "train/b.png word"), ("icdar", "b.png, word")]
)
def test_a_line_without_a_label_is_an_error_with_its_number(form: str, line: str, tmp_path: Path) -> None:
    good = {"space": "train/a.png x", "tab": "train/a.png\tx", "icdar": 'train/a.png, "x"'}[form]
    write(tmp_path, f"{good}\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"labels\.txt, line 3: no label: found '{line}'"):
        open_reader(label_file(form), tmp_path)


@pytest.mark.parametrize("path", ["train/none.png", "/etc/passwd", "../secret.png", "train"])
def test_missing_pictures_and_paths_that_lead_out_are_put_aside(path: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, f"{path} x\ntrain/a.png y\n")
    (tmp_path / "secret.png").write_bytes(b"secret")
    problem = "picture file missing, or outside the data set"
    assert read(root, label_file()) == [(b"", "x", problem), (b"a.png", "y", "")]
    (first, _) = open_reader(label_file(), root).read(0, 2)
    assert first.where == f"labels.txt, line 1: {path}"


def test_paths_count_from_the_label_file_or_the_root(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png x\n../train/a.png y\nc.png z\n", "lists/gt.txt")
    (tmp_path / "lists" / "c.png").write_bytes(b"beside")
    entry = label_file(labels="lists/gt.txt")
    assert [image for image, _, _ in read(tmp_path, entry)] == [b"a.png", b"", b"beside"]


def test_a_missing_label_file_is_an_error_that_lists_others(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png x")
    with pytest.raises(ValueError, match=r"label file 'gt\.txt' is not in the archive.*\['labels\.txt'\]"):
        open_reader(label_file(labels="gt.txt"), tmp_path)


def test_a_label_file_must_be_utf8(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png Café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.txt: not UTF-8 at byte 15"):
        open_reader(label_file(), tmp_path)


LMDB = Entry(source="file:///x", reader="lmdb", samples=1, licence="CC0")


def write_lmdb(folder: Path, records: dict[str, bytes]) -> None:
    """An environment as DTRB's tool leaves it after a copy without its lock file."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    (folder / "lock.mdb").unlink()


def dtrb(*labels: str) -> dict[str, bytes]:
    records = {"num-samples": str(len(labels)).encode()}
    for number, label in enumerate(labels, start=1):
        records |= {f"image-{number:09}": f"picture of {label}".encode(), f"label-{number:09}": label.encode()}
    return records


def test_lmdb_environments_below_the_root_are_one_sequence(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "deep" / "b", dtrb("three", "vier ü"))
    write_lmdb(tmp_path / "deep" / "a", dtrb("one", "two"))
    reader = open_reader(LMDB, tmp_path)
    assert len(reader) == 4
    assert [s.label for s in reader.read(0, 4)] == ["one", "two", "three", "vier ü"]
    middle = list(reader.read(1, 3))
    assert [bytes(s.image) for s in middle] == [b"picture of two", b"picture of three"]
    assert [s.where for s in middle] == ["deep/a/data.mdb: 000000002", "deep/b/data.mdb: 000000001"]


def test_lmdb_records_that_are_missing_or_no_text_are_put_aside(tmp_path: Path) -> None:
    records = dtrb("one", "two", "three")
    del records["image-000000001"]
    del records["label-000000002"]
    records["label-000000003"] = b"\xff\xfe"
    write_lmdb(tmp_path / "a", records)
    problems = [problem for _, _, problem in read(tmp_path, LMDB)]
    assert problems[:2] == ["no image record", "no label record"]
    assert problems[2].startswith("unreadable record: 'utf-8' codec can't decode")


@pytest.mark.parametrize("count", [None, b"many", b""])
def test_an_lmdb_without_a_count_is_refused(count: bytes | None, tmp_path: Path) -> None:
    records = dtrb("one")
    if count is None:
        del records["num-samples"]
    else:
        records["num-samples"] = count
    write_lmdb(tmp_path / "a", records)
    with pytest.raises(ValueError, match=r"a/data\.mdb: num-samples is "):
        open_reader(LMDB, tmp_path)


def test_an_archive_without_lmdb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no LMDB environment"):
        open_reader(LMDB, tmp_path)


def test_a_cut_lmdb_is_refused(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", dtrb("one"))
    data = (tmp_path / "a" / "data.mdb").read_bytes()
    (tmp_path / "a" / "data.mdb").write_bytes(data[:-4096])
    with pytest.raises(ValueError, match=r"data\.mdb: cut off"):
        open_reader(LMDB, tmp_path)


def test_rendered_words_are_those_of_the_renderer(tmp_path: Path) -> None:
    source = "synth://words?seed=7&count=9&fonts=train&words=train&difficulty=easy"
    reader = open_reader(Entry(source=source, reader="synth", samples=9, licence="CC0"), tmp_path)
    expected = list(render(SynthSpec.parse(source), 4, 6))
    found = list(reader.read(4, 6))
    assert len(reader) == 9
    assert [s.where for s in found] == ["index 4", "index 5"]
    assert [s.label for s in found] == [label for _, label in expected]
    assert all(np.array_equal(s.image, image) for s, (image, _) in zip(found, expected, strict=True))
