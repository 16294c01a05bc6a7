import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from tests.wordmill.shards.made_sets import write_lmdb
from wordmill.readers.lmdb import MOST_OPEN, Lmdb


def problems(root: Path) -> list[str]:
    reader = Lmdb(root)
    return [sample.problem for sample in reader.read(range(len(reader)))]


def test_environments_below_the_root_are_one_sequence_ordered_by_path(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "deep" / "b", ["three", "vier ü"])
    write_lmdb(tmp_path / "deep" / "a", ["one", "two"])
    reader = Lmdb(tmp_path)
    assert len(reader) == 4
    assert [s.label for s in reader.read(range(4))] == ["one", "two", "three", "vier ü"]
    middle = list(reader.read([2, 1]))
    assert [s.image for s in middle] == [b"picture of three", b"picture of two"]
    assert [s.where for s in middle] == ["deep/b/data.mdb: 000000001", "deep/a/data.mdb: 000000002"]


def test_chinese_labels_of_the_same_form(tmp_path: Path) -> None:
    """Fudan's benchmark comes in this form too, each set as one environment."""
    write_lmdb(tmp_path / "scene_train", ["中国银行", "２０２１年", "Hotel 酒店"])
    assert [s.label for s in Lmdb(tmp_path).read(range(3))] == ["中国银行", "２０２１年", "Hotel 酒店"]


def test_a_data_file_alone_is_an_environment(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    shutil.move(write_lmdb(tmp_path / "a", ["one"]), tmp_path / "root" / "words.mdb")
    assert [s.where for s in Lmdb(tmp_path / "root").read([0])] == ["words.mdb: 000000001"]


def test_thousands_of_environments_are_read_with_few_of_them_open(tmp_path: Path) -> None:
    first = write_lmdb(tmp_path / "0000", ["word"], map_size=1 << 40)
    for number in range(1, 2000):
        (tmp_path / f"{number:04}").mkdir()
        shutil.copy(first, tmp_path / f"{number:04}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + MOST_OPEN + 8, hard))
    try:
        reader = Lmdb(tmp_path)
        assert len(reader) == 2000
        order = [number * 7 % 2000 for number in range(2000)]
        assert [s.where[:4] for s in reader.read(order)] == [f"{number:04}" for number in order]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nothing_stays_open_between_reads(tmp_path: Path) -> None:
    """LMDB refuses to open a file twice in one process; two readers of one folder must not meet that."""
    write_lmdb(tmp_path / "a", ["one", "two"])
    first, second = Lmdb(tmp_path), Lmdb(tmp_path)
    abandoned = first.read([0, 1])
    next(abandoned)
    del abandoned
    assert [s.label for s in second.read([1])] == ["two"]
    assert [s.label for s in first.read([0])] == ["one"]


def test_read_only_media_are_enough(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", ["one"])
    (tmp_path / "a" / "data.mdb").chmod(0o444)
    (tmp_path / "a").chmod(0o555)
    before = sorted(tmp_path.rglob("*"))
    try:
        assert problems(tmp_path) == [""]
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        (tmp_path / "a").chmod(0o755)


def test_a_read_only_mount_is_enough(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", ["one"])
    script = (
        f"mount --bind -o ro {tmp_path} {tmp_path} && ! touch {tmp_path}/b 2>/dev/null && "
        f"{shlex.quote(sys.executable)} -c '"
        "from pathlib import Path; from wordmill.readers.lmdb import Lmdb; "
        f'print([s.label for s in Lmdb(Path("{tmp_path}")).read([0])])\''
    )
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*shell, f"mount --bind -o ro {tmp_path} {tmp_path}"], capture_output=True).returncode:
        pytest.skip("no name spaces for mounts here")
    done = subprocess.run([*shell, script], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("['one']\n", 0), done.stderr


def test_records_that_are_missing_empty_or_no_text_are_put_aside(tmp_path: Path) -> None:
    write_lmdb(
        tmp_path / "a",
        ["one", "two", "three", "four", "five", "six"],
        image_1=None,
        label_2=None,
        label_3=b"\xff\xfe",
        image_4=b"",
        label_5=b"",
    )
    found = problems(tmp_path)
    assert found[:2] == ["no image record", "no label record"]
    assert found[2].startswith("unreadable label: 'utf-8' codec can't decode")
    assert found[3:] == ["the image record is empty", "", ""]


def test_a_count_that_is_too_large_leaves_samples_without_records(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", ["one"], num_samples=b"3")
    assert problems(tmp_path) == ["", "no image and no label record", "no image and no label record"]


def test_a_count_that_is_too_small_is_an_error(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", ["one", "two", "three"], num_samples=b"2")
    with pytest.raises(ValueError, match=r"a/data\.mdb: num-samples is 2, but there is image-000000003"):
        Lmdb(tmp_path)


def test_records_that_count_from_0_are_all_taken_and_that_is_told(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", ["one", "two"])
    path = write_lmdb(tmp_path / "b", ["two", "three"], num_samples=b"3")
    with lmdb.open(str(path.parent), map_size=1 << 24) as file, file.begin(write=True) as transaction:
        transaction.put(b"image-000000000", b"picture of one")
        transaction.put(b"label-000000000", b"one")
    reader = Lmdb(tmp_path)
    samples = list(reader.read(range(5)))
    assert [sample.label for sample in samples] == ["one", "two", "one", "two", "three"]
    assert samples[2].where == "b/data.mdb: 000000000"
    assert reader.notes == ("b/data.mdb: its records count from 0, not from 1: all are taken",)
    with lmdb.open(str(path.parent), map_size=1 << 24) as file, file.begin(write=True) as transaction:
        transaction.put(b"num-samples", b"2")
    with pytest.raises(ValueError, match="num-samples is 2, but there is image-000000002"):
        Lmdb(tmp_path)


def test_two_links_to_one_file_are_two_environments(tmp_path: Path) -> None:
    stored = write_lmdb(tmp_path / "store", ["one", "two"])
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "data.mdb").symlink_to(stored)
    reader = Lmdb(tmp_path / "root")
    assert [sample.label for sample in reader.read([0, 2, 1, 3])] == ["one", "one", "two", "two"]


def test_an_environment_in_one_file_is_read_and_what_macos_leaves_beside_is_not(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    shutil.move(write_lmdb(tmp_path / "a", ["one"]), tmp_path / "root" / "words.lmdb")
    (tmp_path / "root" / "words.lmdb-lock").write_bytes(b"lock")
    (tmp_path / "root" / "._words.lmdb").write_bytes(b"\0\5\x16\7")
    (tmp_path / "root" / "__MACOSX").mkdir()
    (tmp_path / "root" / "__MACOSX" / "data.mdb").write_bytes(b"\0\5\x16\7")
    assert [sample.label for sample in Lmdb(tmp_path / "root").read(range(1))] == ["one"]


@pytest.mark.parametrize("count", [None, b"many", b"", b"-1", b"1.0", b"9" * 5000])
def test_an_lmdb_without_a_count_is_refused(count: bytes | None, tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", ["one"], num_samples=count)
    with pytest.raises(ValueError, match=r"a/data\.mdb: num-samples is .*not an LMDB of word images"):
        Lmdb(tmp_path)


def test_an_archive_without_lmdb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no LMDB environment"):
        Lmdb(tmp_path)


@pytest.mark.parametrize("missing", [1, 4096, 40_000])
def test_a_cut_lmdb_is_refused(missing: int, tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "a", ["one"], image_1=b"x" * 50_000)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ValueError, match=r"data\.mdb: cut off: found \d+ bytes, expected \d+"):
        Lmdb(tmp_path)


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 100, b"\0" * 16384, b"PNG" * 5000])
def test_a_file_that_is_no_lmdb_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(ValueError, match=r"data\.mdb: not a readable LMDB file"):
        Lmdb(tmp_path)


def test_damage_that_hides_the_count_is_an_error(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "a", ["one"])
    data = bytearray(path.read_bytes())
    place = data.index(b"num-samples") // 4096 * 4096
    data[place + 10] ^= 2  # the page says to be no leaf
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a/data\.mdb: damaged: "):
        Lmdb(tmp_path)


def test_damage_inside_costs_only_the_samples_that_it_hits(tmp_path: Path) -> None:
    """A page number that leads nowhere: LMDB refuses the rest of that transaction, not of the file."""
    path = write_lmdb(tmp_path / "a", ["one", "two", "three"], image_2=b"x" * 9000)
    reader = Lmdb(tmp_path)
    data, key = bytearray(path.read_bytes()), b"image-000000002"
    assert data.count(key) == 1
    place = data.index(key) + len(key)  # a large record's node holds the number of its first page
    data[place : place + 8] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(data)
    found = list(reader.read([0, 1, 2, 0]))
    assert [s.label for s in found] == ["one", "", "three", "one"]
    assert found[1].problem.startswith("unreadable record: ")
