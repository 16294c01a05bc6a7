"""Archives that are cut, damaged or made to deceive: each ends in an error that names the archive and the member."""

import gzip
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from tests.wordmill.sources.test_archives import (
    MAKERS,
    Maker,
    files,
    make_tar,
    make_tar_bz2,
    make_tar_gz,
    make_tar_xz,
    make_zip,
    unpack,
)
from wordmill.sources import members as archives_members
from wordmill.sources.archives import Limits


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "\\\\host\\share\\evil", "a\\..\\..\\evil"]
)
def test_paths_that_lead_out_are_refused(make: Maker, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(ValueError, match=r"archive: .*evil.*expected a path inside"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w") as file:
        info = tarfile.TarInfo("strange")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(ValueError, match="strange: is a link or a device"):
        unpack(tmp_path / "archive", tmp_path / "out")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="link: is a link or a device"):
        unpack(tmp_path / "archive", tmp_path / "out")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a")])
def test_names_that_stand_twice_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w") as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match=f"{names[1]}: stands there twice, or as a file and a folder"):
        unpack(tmp_path / "archive", tmp_path / "out")


@pytest.mark.parametrize("make", MAKERS)
def test_limits_hold(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"a": os.urandom(600), "b": bytes(400_000)})
    unpack(archive, tmp_path / "fits", Limits(entries=2, total_bytes=400_600))
    with pytest.raises(ValueError, match="more than 1 entries"):
        unpack(archive, tmp_path / "out", Limits(entries=1))
    with pytest.raises(ValueError, match="archive: b: unpacks to more than"):
        unpack(archive, tmp_path / "out", Limits(total_bytes=400_599))


@pytest.mark.parametrize("make", [make_zip, make_tar_gz])
def test_a_bomb_is_refused_by_its_ratio(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"bomb": bytes(3_000_000)})
    assert archive.stat().st_size * 200 < 3_000_000
    unpack(archive, tmp_path / "small", Limits(free_bytes=3_000_000))
    with pytest.raises(ValueError, match="bomb: unpacks to more than"):
        unpack(archive, tmp_path / "out", Limits(free_bytes=1000))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_archive_is_refused_by_its_name(make: Maker, share: float, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", {"first": os.urandom(5000), "second": os.urandom(5000)}).read_bytes()
    filled = len(whole.rstrip(b"\0"))  # a tar is padded with zeros
    (tmp_path / "cut").write_bytes(whole[: int(filled * share)])
    with pytest.raises(ValueError, match=r"cut: (damaged or )?cut off"):
        unpack(tmp_path / "cut", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_damaged_member_is_named(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", {"first": os.urandom(5000), "second": os.urandom(5000)})
    data = bytearray(archive.read_bytes())
    data[7000] ^= 1  # in the second member's content
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="archive: damaged or cut off at second: Bad CRC-32"):
        unpack(archive, tmp_path / "out")


def test_a_tar_cut_between_members_is_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "archive", {"first": b"x" * 512, "second": b"y" * 512})
    archive.write_bytes(archive.read_bytes()[: 2 * 512])  # the first member, header and content, is whole
    with pytest.raises(ValueError, match="archive: damaged or cut off: empty header"):
        unpack(archive, tmp_path / "out")


def test_encrypted_zips_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", {"a": b"1"})
    patched = bytearray(archive.read_bytes())
    patched[patched.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(patched)
    with pytest.raises(ValueError, match="a: encrypted"):
        unpack(archive, tmp_path / "out")


def bytes_left(archive: Path) -> list[str]:
    return sorted(path.name for path in archive.parent.iterdir())


def test_a_bomb_of_overlapping_entries_is_refused(tmp_path: Path) -> None:
    """All entries of the list point at the same 1 MB of zeros, the kernel of the bombs of Fifield."""
    archive = make_zip(tmp_path / "archive", {"zeros": bytes(1 << 20)})
    data = archive.read_bytes()
    central = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    record, count = data[central:end], 1000
    names = [b"z%04d" % number for number in range(count)]  # as long as "zeros"
    listed = b"".join(record[:46] + name + record[51:] for name in names)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(listed), central, 0)
    local = data[:central]
    archive.write_bytes(local + listed + tail)
    with pytest.raises(ValueError, match="archive: z0001: shares bytes with z0000: made to deceive"):
        unpack(archive, tmp_path / "out")
    assert bytes_left(archive) == ["archive"]


@pytest.mark.parametrize("inner", [make_zip, make_tar_gz])
def test_a_bomb_in_an_archive_counts_against_the_outer_one(inner: Maker, tmp_path: Path) -> None:
    suffix = "zip" if inner is make_zip else "tgz"
    bomb = inner(tmp_path / "bomb", {"zeros": bytes(3_000_000)}).read_bytes()
    archive = make_zip(tmp_path / "archive", {f"{number}/b.{suffix}": bomb for number in range(8)})
    # One alone would pass: 3,000,000 are less than the 4,000,000 that are free.
    with pytest.raises(ValueError, match="archive: 1/zeros: unpacks to more than the limits"):
        unpack(archive, tmp_path / "out", Limits(free_bytes=4_000_000, ratio=1))
    assert bytes_left(archive) == ["archive", "bomb"]


def test_a_third_level_of_archives_is_refused(tmp_path: Path) -> None:
    content = b"data"
    for level in range(3):
        content = make_zip(tmp_path / "archive", {f"{level}.zip": content}).read_bytes()
    with pytest.raises(ValueError, match="archive: 1.zip: an archive in an archive in an archive"):
        unpack(tmp_path / "archive", tmp_path / "out")


def test_names_that_collide_between_archives_are_refused(tmp_path: Path) -> None:
    one = make_zip(tmp_path / "one", {"gt.txt": b"1"}).read_bytes()
    archive = make_zip(tmp_path / "archive", {"a.zip": one, "b.zip": one})
    with pytest.raises(ValueError, match="gt.txt: stands there twice"):
        unpack(archive, tmp_path / "out")


def test_an_extended_header_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """Python's tarfile reads the record of a long name as a whole; 300 MB of it fit into 300 kB of gzip."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 300 << 20
    with gzip.open(tmp_path / "archive", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(300):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="@LongLink: has an extended header of 314,572,800 bytes"):
        unpack(tmp_path / "archive", tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("holes")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "archive").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match="holes: is sparse, expected files"):
        unpack(tmp_path / "archive", tmp_path / "out")


def test_a_zip_with_an_endless_list_of_entries_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_zip(tmp_path / "archive", {f"{number:05}": b"" for number in range(100)})
    size = 100 * (46 + 5)  # a record of the list is 46 bytes and the name
    monkeypatch.setattr(archives_members, "DIRECTORY_BYTES", size)
    unpack(archive, tmp_path / "fits")
    monkeypatch.setattr(archives_members, "DIRECTORY_BYTES", size - 1)
    with pytest.raises(ValueError, match=r"list of entries takes 5,100 bytes, more than 5,099: pack it as tar"):
        unpack(archive, tmp_path / "out")


def test_the_list_of_a_large_zip_is_measured_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 65,535 entries or 4 GB the record at the end holds ones, and another before it the numbers (zip64)."""
    archive = make_zip(tmp_path / "archive", {f"{number:05}": b"" for number in range(100)})
    data, size = archive.read_bytes()[:-22], 5100
    start = len(data) - size
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 100, 100, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    archive.write_bytes(data + record + locator + end)
    monkeypatch.setattr(archives_members, "DIRECTORY_BYTES", size)
    unpack(archive, tmp_path / "fits")
    assert len(files(tmp_path / "fits")) == 100
    monkeypatch.setattr(archives_members, "DIRECTORY_BYTES", size - 1)
    with pytest.raises(ValueError, match=r"list of entries takes 5,100 bytes"):
        unpack(archive, tmp_path / "out")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "archive", {"first": b"x", "second": b"y", "third": b"z"})
    data = bytearray(archive.read_bytes())
    data[1024 + 150] ^= 1  # the checksum of the second member's header
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="archive: damaged or cut off: bad checksum"):
        unpack(archive, tmp_path / "out")
    assert bytes_left(archive) == ["archive"]


@pytest.mark.parametrize("make", [make_tar_gz, make_tar_bz2, make_tar_xz])
def test_a_flipped_bit_is_noticed(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"first": os.urandom(200_000)})
    data = bytearray(archive.read_bytes())
    data[100_000] ^= 16
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="archive: damaged or cut off"):
        unpack(archive, tmp_path / "out")
    assert bytes_left(archive) == ["archive"]


def test_a_tar_that_goes_on_behind_its_end_is_refused(tmp_path: Path) -> None:
    inner = make_tar(tmp_path / "inner", {"first": b"x"}).read_bytes()
    with gzip.open(tmp_path / "archive", "wb", compresslevel=1) as file:
        file.write(inner)
        for _ in range(17):
            file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match="archive: it goes on behind its end"):
        unpack(tmp_path / "archive", tmp_path / "out")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/" * 65 + "b", "expected a path inside the archive's folder, of at most 64 parts"),
        ("n" * 256, "a name of 256 characters is too long"),
    ],
)
def test_names_that_no_disk_takes_are_refused(make: Maker, name: str, message: str, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {name: b"1"})
    with pytest.raises(ValueError, match=message):
        unpack(archive, tmp_path / "out")


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", {"a": bytes(100_000)})
    data = archive.read_bytes()
    central = data.index(b"PK\x01\x02")
    patched = bytearray(data)
    struct.pack_into("<L", patched, central + 24, 10)  # it says that ten bytes come out
    archive.write_bytes(patched)
    with pytest.raises(ValueError, match="archive: damaged or cut off at a: Bad CRC-32"):
        unpack(archive, tmp_path / "out")


def test_a_gzip_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(gzip.compress(b"labels, not a tar"))
    with pytest.raises(ValueError, match="archive: damaged or cut off"):
        unpack(tmp_path / "archive", tmp_path / "out")


def test_a_zip_of_a_version_to_come_and_an_entry_without_a_name_are_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip(tmp_path / "archive", {"a": b"1"}).read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 6] = 99  # the version that is needed
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ValueError, match="archive: damaged or cut off at its start: zip file version 9.9"):
        unpack(tmp_path / "archive", tmp_path / "out")
    content[place + 6], content[30], content[place + 46] = 20, 0, 0  # to NUL, which ends a name
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ValueError, match="archive: an entry without a name: made to deceive, or damaged"):
        unpack(tmp_path / "archive", tmp_path / "out")
