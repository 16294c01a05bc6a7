import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from wordmill.readers.label_file import LabelFile


def write(root: Path, text: str | bytes, labels: str = "labels.txt") -> None:
    path = root / labels
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name in ("a.png", "b.png"):
        (root / "train").mkdir(exist_ok=True)
        (root / "train" / name).write_bytes(name.encode())


def read(root: Path, form: str, labels: str = "labels.txt") -> list[tuple[bytes, str, str]]:
    reader = LabelFile(root, labels, form)
    return [(bytes(s.image), s.label, s.problem) for s in reader.read(range(len(reader)))]


FORMS = {
    "space": "train/a.png You & me\ntrain/b.png Café\n",
    "dtrb": "train/a.png\tYou & me\ntrain/b.png\tCafé\n",
    "paddleocr": "train/a.png\tYou & me\ntrain/b.png\tCafé\n",
    "icdar": 'train/a.png, "You & me"\ntrain/b.png, "Café"\n',
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dress", ["plain", "bom", "crlf", "bom and crlf", "no newline at the end", "blank lines"])
def test_label_files_of_every_form(form: str, dress: str, tmp_path: Path) -> None:
    text = FORMS[form]
    dressed = {
        "plain": text.encode(),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
        "bom and crlf": b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        "no newline at the end": text.rstrip().encode(),
        "blank lines": b"\n \t\r\n" + text.replace("\n", "\n\r\n\n").encode(),
    }
    write(tmp_path, dressed[dress])
    assert read(tmp_path, form) == [(b"a.png", "You & me", ""), (b"b.png", "Café", "")]


@pytest.mark.parametrize(
    ("form", "line", "label"),
    [
        ("icdar", r'train/a.png, "say \"yes\""', 'say "yes"'),
        ("icdar", 'train/a.png, "50", 2"', '50", 2'),
        ("icdar", r'train/a.png, "C:\\dir"', r"C:\dir"),
        ("icdar", 'train/a.png,"tight"', "tight"),
        ("icdar", 'train/a.png, "1,000"', "1,000"),
        ("icdar", 'train/a.png, "tab\tbed" ', "tab\tbed"),
        ("icdar", 'train/a.png, ""', ""),
        ("dtrb", 'train/a.png\t"quoted", as it is', '"quoted", as it is'),
        ("dtrb", "train/a.png\t two  blanks ", " two  blanks "),
        ("dtrb", "train/a.png\t", ""),
        ("paddleocr", 'train/a.png\t"a, b"', '"a, b"'),
        ("paddleocr", "train/a.png\tword\tnot read", "word"),
        ("paddleocr", '["train/a.png"]\tword', "word"),
        ("space", 'train/a.png tab\t"and, more', 'tab\t"and, more'),
        ("space", "train/a.png one\u2028two\x0bthree\x85four", "one\u2028two\x0bthree\x85four"),
    ],
)
def test_labels_hold_what_the_form_lets_them_hold(form: str, line: str, label: str, tmp_path: Path) -> None:
    write(tmp_path, line + "\n")
    assert read(tmp_path, form) == [(b"a.png", label, "")]


def written(form: str, label: str) -> str:
    """A line as the form's own tools write it."""
    if form == "icdar":
        escaped = label.replace("\\", "\\\\").replace('"', '\\"')
        return f'train/a.png, "{escaped}"'
    return f"train/a.png{' ' if form == 'space' else chr(9)}{label}"


@pytest.mark.parametrize("form", FORMS)
@given(
    labels=some.lists(some.text(some.characters(exclude_characters="\r\n\t", exclude_categories=["Cs"]))),
    end=some.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_tool_writes_is_read_back(form: str, labels: list[str], end: str, tmp_path: Path) -> None:
    write(tmp_path, "".join(written(form, label) + end for label in labels))
    assert read(tmp_path, form) == [(b"a.png", label, "") for label in labels]


def test_a_tab_separated_path_may_hold_spaces_and_commas(tmp_path: Path) -> None:
    write(tmp_path, "my, a.png\tword\n")
    (tmp_path / "my, a.png").write_bytes(b"spaced")
    assert read(tmp_path, "dtrb") == read(tmp_path, "paddleocr") == [(b"spaced", "word", "")]


def test_one_of_several_pictures_is_chosen_by_the_lines_number(tmp_path: Path) -> None:
    write(tmp_path, '["train/a.png", "train/b.png"]\tword\n' * 3)
    assert [image for image, _, _ in read(tmp_path, "paddleocr")] == [b"b.png", b"a.png", b"b.png"]


@pytest.mark.parametrize("path", ["[a].png", "[1.png", "[" * 200])
def test_a_path_that_only_begins_like_a_list_is_a_path(path: str, tmp_path: Path) -> None:
    write(tmp_path, f"{path}\tword\n")
    (tmp_path / path).write_bytes(b"bracket")
    assert read(tmp_path, "paddleocr") == [(b"bracket", "word", "")]


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("space", "train/b.png"),
        ("space", " word"),
        ("dtrb", "train/b.png word"),
        ("dtrb", "train/b.png\tone\ttwo"),
        ("dtrb", "\tword"),
        ("paddleocr", "train/b.png"),
        ("paddleocr", "[]\tword"),
        ("paddleocr", "[3]\tword"),
        ("icdar", "b.png, word"),
        ("icdar", "b.png"),
        ("icdar", ', "word"'),
    ],
)
def test_a_line_without_the_form_is_put_aside_with_its_number(form: str, line: str, tmp_path: Path) -> None:
    good = FORMS[form].partition("\n")[0]
    write(tmp_path, f"{good}\n\n{line}\n{good}\n")
    first, bad, last = LabelFile(tmp_path, "labels.txt", form).read([0, 1, 2])
    assert (first.label, last.label, last.where) == ("You & me", "You & me", "labels.txt, line 4: train/a.png")
    assert (bad.image, bad.label) == (b"", "")
    assert bad.where.startswith("labels.txt, line 3")
    assert bad.problem


def test_what_is_wrong_with_a_line_is_said(tmp_path: Path) -> None:
    write(tmp_path, "train/b.png word\n")
    (sample,) = LabelFile(tmp_path, "labels.txt", "dtrb").read([0])
    assert sample.where == "labels.txt, line 1"
    assert sample.problem == "no path and label: found 'train/b.png word', expected the form 'dtrb'"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("train/none.png", "picture file missing"),
        ("train/a.png/b.png", "picture file not readable: Not a directory"),
        ("/etc/passwd", "picture file outside the data set"),
        ("../secret.png", "picture file outside the data set"),
        ("train/../../secret.png", "picture file outside the data set"),
        ("a\0b", "picture file outside the data set"),
        ("x" * 5000, "picture file not readable: File name too long"),
        ("train", "no picture file of at most 64 MiB"),
        ("pipe", "no picture file of at most 64 MiB"),
        ("huge", "no picture file of at most 64 MiB"),
    ],
)
def test_pictures_that_cannot_be_had_are_put_aside(path: str, problem: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, f"{path} x\ntrain/a.png y\n")
    (tmp_path / "secret.png").write_bytes(b"secret")
    os.mkfifo(root / "pipe")
    with (root / "huge").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert read(root, "space") == [(b"", "x", problem), (b"a.png", "y", "")]
    (first,) = LabelFile(root, "labels.txt", "space").read([0])
    assert first.where == f"labels.txt, line 1: {path}"


def test_paths_count_from_the_label_file_or_the_root(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png x\n../train/a.png y\nc.png z\n", "lists/gt.txt")
    (tmp_path / "lists" / "c.png").write_bytes(b"beside")
    assert [image for image, _, _ in read(tmp_path, "space", "lists/gt.txt")] == [b"a.png", b"", b"beside"]


def test_a_missing_label_file_is_an_error_that_lists_others(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png x")
    with pytest.raises(ValueError, match=r"label file 'gt\.txt' is not in the archive.*\['labels\.txt'\]"):
        LabelFile(tmp_path, "gt.txt", "space")


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("train/a.png Café".encode("latin-1"), 1, "as cp1252 it reads 'train/a.png Café'"),
        ("train/a.png x\ntrain/b.png Café".encode("latin-1"), 2, "as cp1252 it reads 'train/b.png Café'"),
        (b"\xef\xbb\xbf" + "\ntrain/a.png 样本".encode("gbk"), 2, "as gb18030 it reads 'train/a.png 样本'"),
        ("train/a.png ひらがな".encode("shift_jis"), 1, ".*, as cp932 it reads 'train/a.png ひらがな'"),
        (b"train/a.png \xff\x81", 1, r"byte 12 is 0xff"),
    ],
)
def test_a_label_file_in_another_encoding_is_refused_by_its_line(
    text: bytes, line: int, told: str, tmp_path: Path
) -> None:
    write(tmp_path, text)
    with pytest.raises(ValueError, match=rf"^labels\.txt, line {line}: not UTF-8: {told}.*: save it as UTF-8$"):
        LabelFile(tmp_path, "labels.txt", "space")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_says_utf16_or_utf32(form: str, encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    write(tmp_path, (mark + FORMS[form].replace("\n", "\r\n\r\n")).encode(encoding))
    assert read(tmp_path, form) == [(b"a.png", "You & me", ""), (b"b.png", "Café", "")]
    write(tmp_path, "x".encode("utf-16") + b"\0")
    with pytest.raises(ValueError, match=r"labels\.txt: begins as UTF-16 and goes on as something else"):
        LabelFile(tmp_path, "labels.txt", "space")
    write(tmp_path, "a.png x\n".encode("utf-16-le"))  # without a mark
    with pytest.raises(ValueError, match=r"labels\.txt, line 1: as UTF-8 it is full of NULs: UTF-16 or UTF-32"):
        LabelFile(tmp_path, "labels.txt", "space")


def test_lines_that_end_as_on_old_macs_are_told(tmp_path: Path) -> None:
    write(tmp_path, b"a.png\tx\rb.png\ty\r")
    ((_, _, problem),) = read(tmp_path, "dtrb")
    assert problem.endswith("expected the form 'dtrb': lines end with CR alone: save it with LF or CRLF")


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        ("filename,words\ntrain/a.png,one\ntrain/b.png,two\n", ["one", "two"]),
        ("train/a.png,one\ntrain/b.png,two\n", ["one", "two"]),
        ('train/a.png,"New York, NY"\n"train/b.png","5"" pipe"\n', ["New York, NY", '5" pipe']),
        ("train/a.png,New York, NY\ntrain/b.png, two\n", ["New York, NY", " two"]),
        ('filename,words\ntrain/a.png,5" pipe\ntrain/b.png,6" pipe\n', ['5" pipe', '6" pipe']),
        ('train/a.png,"two\nlines"\n\ntrain/b.png,x\n', ["two\nlines", "x"]),
        ('train/a.png,"never ends\ntrain/b.png,x\n', ['"never ends', "x"]),
        ('id,image,text,lang\n1,train/a.png,"a,b",en\n2,train/b.png,x,en\n', ["a,b", "x"]),
        ("text,image\none,train/a.png\ntwo,train/b.png\n", ["one", "two"]),
        ("train/a.png,\ntrain/b.png,\u2028x\n", ["", "\u2028x"]),
    ],
)
def test_csv_is_read_as_its_tools_write_it(lines: str, labels: list[str], tmp_path: Path) -> None:
    for text in (lines.encode(), b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode()):
        write(tmp_path, text)
        told = [label.replace("\n", "\r\n") if b"\r" in text else label for label in labels]
        assert read(tmp_path, "csv") == [(b"a.png", told[0], ""), (b"b.png", told[1], "")]


def test_lines_of_csv_keep_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, 'filename,words\n\ntrain/a.png,"two\nlines"\n\ntrain/none.png,x\nonly\n')
    samples = list(LabelFile(tmp_path, "labels.txt", "csv").read(range(3)))
    assert [sample.where[:18] for sample in samples] == [f"labels.txt, line {n}"[:18] for n in (3, 6, 7)]
    assert samples[2].problem == "no path and label: found 'only', expected the form 'csv'"


@pytest.mark.parametrize(
    "line",
    ['{"filename": "train/a.png", "text": "one"}', '{"img_path": "train/a.png", "label": "one", "lang": "en"}',
     '{"file_name": "train/a.png", "text": "\\u006fne"}'],
)  # fmt: skip
def test_lines_of_json_have_paths_and_labels_under_their_usual_names(line: str, tmp_path: Path) -> None:
    write(tmp_path, f'{line}\n{{"filename": "train/b.png", "text": "a\u2028b\x85"}}\n')
    assert read(tmp_path, "jsonl") == [(b"a.png", "one", ""), (b"b.png", "a\u2028b\x85", "")]


@pytest.mark.parametrize("line", ["word", "[1]", '{"filename": "a"}', '{"text": "a"}', '{"filename": 3, "text": "x"}',
                                  '{"filename": "train/a.png", "text": "\\ud800"}', "[" * 9999])  # fmt: skip
def test_a_line_of_json_without_the_form_is_put_aside(line: str, tmp_path: Path) -> None:
    write(tmp_path, line + "\n")
    [(image, _, problem)] = read(tmp_path, "jsonl")
    assert (image, problem.partition(":")[0]) == (b"", "no path and label")


def test_a_tab_where_a_space_is_declared_is_told(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png\tNew York\n")
    assert read(tmp_path, "space")[0][2] == (
        "picture file missing: the line has a tab, which label_format 'dtrb' takes")  # fmt: skip


def test_a_file_without_lines_is_no_label_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordmill.readers.label_file.MOST_BYTES", 1 << 20)
    write(tmp_path, "train/a.png x\n" + "y" * (1 << 20))
    with pytest.raises(ValueError, match=r"labels\.txt: a line of 1 MiB or more, at byte 14: no label file"):
        LabelFile(tmp_path, "labels.txt", "space")


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf", b"\n\r\n  \n"])
def test_an_empty_label_file_has_no_samples(text: bytes, tmp_path: Path) -> None:
    write(tmp_path, text)
    assert read(tmp_path, "space") == []


def test_a_label_of_ten_megabytes_is_read_whole(tmp_path: Path) -> None:
    label = "long " * (2 << 20)
    write(tmp_path, f"train/a.png\t{label}\ntrain/b.png\tx\n")
    assert read(tmp_path, "dtrb") == [(b"a.png", label, ""), (b"b.png", "x", "")]


def sizes(reader: LabelFile) -> Sequence[int]:
    return [len(part) * part.itemsize for part in (reader.starts, reader.lengths, reader.blanks)]


def test_a_label_file_costs_twelve_bytes_of_memory_per_line(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png x\n" * 100_000)
    assert sizes(LabelFile(tmp_path, "labels.txt", "space")) == [800_000, 400_000, 0]


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ("标签.txt", "标签.txt".encode("gbk")),
        ("\u00e9.txt", "e\u0301.txt".encode()),
        ("labels.txt", b"Labels.TXT"),
        ("train\\labels.txt", b"train/labels.txt"),
    ],
)
def test_a_label_file_is_found_in_another_spelling(labels: str, name: bytes, tmp_path: Path) -> None:
    write(tmp_path, "", "train/none")
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("train/a.png x\n")
    assert read(tmp_path, "space", labels) == [(b"a.png", "x", "")]


def test_of_two_label_files_in_other_spellings_none_is_taken(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png x", "Labels.txt")
    write(tmp_path, "train/a.png x", "LABELS.txt")
    with pytest.raises(ValueError, match=r"'labels\.txt' is not in .* there: \['LABELS\.txt', 'Labels\.txt'\]"):
        LabelFile(tmp_path, "labels.txt", "space")
