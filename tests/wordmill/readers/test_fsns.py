from pathlib import Path

import pytest

from tests.wordmill.shards.made_sets import example, field, write_records
from wordmill.readers.fsns import Fsns


def sign(text: str, image: bytes = b"png") -> bytes:
    beside = {"image/format": b"PNG", "image/width": [75, 2], "image/orig_width": [75, 2], "image/class": [1] * 37}
    return example({**beside, "image/encoded": image, "image/text": text.encode(), "image/unpadded_class": [1]})


def test_files_below_the_root_are_one_sequence_ordered_by_path(tmp_path: Path) -> None:
    write_records(tmp_path / "train" / "train-00001-of-00002", [sign("Rue Haute", b"three")])
    write_records(
        tmp_path / "train" / "train-00000-of-00002", [sign("Avenue Émile Zola", b"one"), sign("Quai", b"two")]
    )
    (tmp_path / "README.md").write_text("beside")
    reader = Fsns(tmp_path)
    assert len(reader) == 3
    found = list(reader.read([2, 0, 1]))
    assert [(s.image, s.label, s.problem) for s in found] == [
        (b"three", "Rue Haute", ""),
        (b"one", "Avenue Émile Zola", ""),
        (b"two", "Quai", ""),
    ]
    assert found[0].where == "train/train-00001-of-00002: record 0"
    assert found[2].where == "train/train-00000-of-00002: record 1"


def test_pictures_of_any_size_are_read_whole(tmp_path: Path) -> None:
    pictures = [bytes([size % 251]) * size for size in (1, 127, 128, 16383, 16384, 70_000)]
    write_records(tmp_path / "a.tfrecord", [sign("x", picture) for picture in pictures])
    assert [s.image for s in Fsns(tmp_path).read(range(6))] == pictures


def test_a_record_with_a_wrong_checksum_is_put_aside(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", [sign("one"), sign("two", b"needle"), sign("three")])
    path.write_bytes(path.read_bytes().replace(b"needle", b"noodle"))
    one, two, three = Fsns(tmp_path).read(range(3))
    assert (one.label, three.label) == ("one", "three")
    assert two.image == b""
    assert two.problem.startswith("unreadable record: wrong checksum: found 0x")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (example({"image/text": b"x"}), "no feature image/encoded"),
        (example({"image/encoded": b"x"}), "no feature image/text"),
        (example({"image/encoded": [1, 2], "image/text": [3]}), "no feature image/encoded and no image/text"),
        (b"", "no feature image/encoded and no image/text"),
        (example({"image/encoded": b"x", "image/text": b"\xff"}), "unreadable record: 'utf-8' codec can't decode"),
        (
            field(1, field(1, field(1, b"\xff") + field(2, field(1, field(1, b"x"))))),
            "unreadable record: 'utf-8' codec can't decode",
        ),
        (sign("x")[:-3], "unreadable record: no protocol buffer: field 1 of "),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "unreadable record: no protocol buffer: a number does"),
        (b"\x0a\x80", "unreadable record: no protocol buffer: a number does not end"),
        (b"\x0b", "unreadable record: no protocol buffer: field 1 of unknown kind 3"),
        (b"\x09\0\0", "unreadable record: no protocol buffer: field 1 of 8 bytes is cut off"),
    ],
)
def test_a_record_that_is_no_sign_is_put_aside(record: bytes, problem: str, tmp_path: Path) -> None:
    write_records(tmp_path / "a.tfrecord", [record, sign("after")])
    bad, after = Fsns(tmp_path).read([0, 1])
    assert (bad.image, bad.label, after.label) == (b"", "", "after")
    assert bad.problem.startswith(problem)


def test_other_fields_of_a_message_are_passed_over(tmp_path: Path) -> None:
    beside = b"\x10\x96\x01" + b"\x19" + b"8 bytes!" + b"\x25" + b"four" + field(6, b"text")  # kinds 0, 1, 5 and 2
    write_records(tmp_path / "a.tfrecord", [beside + sign("word") + beside])
    assert [s.label for s in Fsns(tmp_path).read([0])] == ["word"]


@pytest.mark.parametrize("kept", [1, 11, 12, 40, -1])
def test_a_cut_file_is_an_error(kept: int, tmp_path: Path) -> None:
    write_records(tmp_path / "a-00000-of-00002", [sign("whole")])
    path = write_records(tmp_path / "a-00001-of-00002", [sign("one")])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a-00001-of-00002: cut off"):
        Fsns(tmp_path)


def test_a_file_that_is_cut_after_it_was_indexed_gives_samples_with_a_problem(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", [sign("one"), sign("two")])
    reader = Fsns(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    one, two = reader.read([0, 1])
    assert one.label == "one"
    assert two.problem.startswith("unreadable record: cut off: found ")


def test_a_damaged_length_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", [sign("one"), sign("two")])
    data = bytearray(path.read_bytes())
    second = len(data) // 2 + 0
    data[second] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.tfrecord: damaged header of record 1, at byte {second}"):
        Fsns(tmp_path)


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").write_bytes(b"\x1f\x8b\x08\0" * 100)
    with pytest.raises(ValueError, match=r"a\.tfrecord: damaged header of record 0, at byte 0: no TFRecord file"):
        Fsns(tmp_path)


def test_an_archive_without_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("x")
    with pytest.raises(ValueError, match="no TFRecord file"):
        Fsns(tmp_path)


def test_records_of_more_than_64_mebibytes_are_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordmill.readers.tfrecord.MOST_BYTES", 500)
    write_records(tmp_path / "a.tfrecord", [sign("big", b"x" * 500), sign("small")])
    big, small = Fsns(tmp_path).read([0, 1])
    assert big.problem.startswith("unreadable record: ")
    assert big.problem.endswith("bytes, expected at most 500")
    assert small.label == "small"
