import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from components.recognition.archives import Limits, kind_of, pack_folder, safe_path, unpack

CONTENT = {"a/one.txt": b"1" * 3000, "zwei ü.txt": b"2"}


def make_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def make_tar(path: Path, content: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def make_tar_gz(path: Path, content: dict[str, bytes]) -> Path:
    return make_tar(path, content, "w:gz")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


MAKERS = [make_zip, make_tar, make_tar_gz]
Maker = Callable[[Path, dict[str, bytes]], Path]


@pytest.mark.parametrize("make", MAKERS)
def test_archives_are_unpacked(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", CONTENT)
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archive", "out"]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "\\\\host\\share\\evil", "a\\..\\..\\evil"]
)
def test_paths_that_lead_out_are_refused(make: Maker, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(ValueError, match=r"archive: .*evil.*expected a path inside"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]


def test_dots_and_backslashes_inside_are_plain_paths() -> None:
    assert safe_path("./a//b").as_posix() == "a/b"
    assert safe_path("a\\b").as_posix() == "a/b"


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
    with pytest.raises(ValueError, match="archive: cut off"):
        unpack(archive, tmp_path / "out")


def test_names_in_utf8_without_the_flag_are_read(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", {"ü": b"1"})
    data = archive.read_bytes()
    # The flag is bit 11 of the general purpose bits: at offset 6 of the local header, 8 of the central one.
    central = data.index(b"PK\x01\x02")
    patched = bytearray(data)
    assert patched[7] == 0x08 == patched[central + 9]
    patched[7] = patched[central + 9] = 0
    archive.write_bytes(patched)
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == {"ü": b"1"}


def test_encrypted_zips_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", {"a": b"1"})
    patched = bytearray(archive.read_bytes())
    patched[patched.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(patched)
    with pytest.raises(ValueError, match="a: encrypted"):
        unpack(archive, tmp_path / "out")


def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    assert kind_of(make_zip(tmp_path / "1", CONTENT)) == "zip"
    assert kind_of(make_tar(tmp_path / "2", CONTENT)) == "tar"
    assert kind_of(make_tar_gz(tmp_path / "3", CONTENT)) == "tar.gz"
    (tmp_path / "4").write_bytes(b"anything else")
    assert kind_of(tmp_path / "4") == "file"
    with pytest.raises(ValueError, match="expected zip, tar or tar.gz"):
        kind_of(make_tar(tmp_path / "5", CONTENT, "w:xz"))
    with pytest.raises(ValueError, match="4: no archive"):
        unpack(tmp_path / "4", tmp_path / "out")


def test_packing_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    for name, order in (("one", list(CONTENT)), ("two", list(CONTENT)[::-1])):
        for file in order:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT[file])
    os.utime(tmp_path / "two" / "a" / "one.txt", (0, 0))
    (tmp_path / "two" / "a" / "one.txt").chmod(0o700)
    (tmp_path / "two" / "lock.mdb").write_bytes(b"changes when it is read")
    pack_folder(tmp_path / "one", tmp_path / "one.tar")
    pack_folder(tmp_path / "two", tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    unpack(tmp_path / "one.tar", tmp_path / "out")
    assert files(tmp_path / "out") == CONTENT


def test_a_linked_folder_is_not_left_out_silently(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="linked: is a link to a folder"):
        pack_folder(tmp_path / "data", tmp_path / "out.tar")
