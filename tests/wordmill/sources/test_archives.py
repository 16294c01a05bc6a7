import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from wordmill.sources.archives import Limits, folder_files, lay_out, pack_tar, safe_path
from wordmill.sources.members import kind_of

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


def make_tar_bz2(path: Path, content: dict[str, bytes]) -> Path:
    return make_tar(path, content, "w:bz2")


def make_tar_xz(path: Path, content: dict[str, bytes]) -> Path:
    return make_tar(path, content, "w:xz")


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> None:
    lay_out({archive.name: archive}, folder, limits=limits)


MAKERS = [make_zip, make_tar, make_tar_gz, make_tar_bz2, make_tar_xz]
Maker = Callable[[Path, dict[str, bytes]], Path]


@pytest.mark.parametrize("make", MAKERS)
def test_archives_are_unpacked(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", CONTENT)
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archive", "out"]


def test_dots_and_backslashes_inside_are_plain_paths() -> None:
    assert safe_path("./a//b").as_posix() == "a/b"
    assert safe_path("a\\b").as_posix() == "a/b"


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


def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    assert kind_of(make_zip(tmp_path / "1", CONTENT)) == "zip"
    for mode, kind in (("w", "tar"), ("w:gz", "tar.gz"), ("w:bz2", "tar.bz2"), ("w:xz", "tar.xz")):
        assert kind_of(make_tar(tmp_path / kind, CONTENT, mode)) == kind
    (tmp_path / "4").write_bytes(b"anything else")
    assert kind_of(tmp_path / "4") == "file"
    (tmp_path / "5").write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(ValueError, match="5: found 7z, rar or zstd, expected zip, tar, tar.gz, tar.bz2 or tar.xz"):
        kind_of(tmp_path / "5")


def test_single_files_are_linked_beside_what_archives_hold(tmp_path: Path) -> None:
    (tmp_path / "gt").write_bytes(b"labels")
    archive = make_zip(tmp_path / "x", {"word_1.png": b"1"})
    lay_out({"pictures.zip": archive, "sub/gt.txt": tmp_path / "gt"}, tmp_path / "out")
    assert files(tmp_path / "out") == {"word_1.png": b"1", "sub/gt.txt": b"labels"}
    assert (tmp_path / "out" / "sub" / "gt.txt").is_symlink()


RELEASE = {"release/MJ/MJ_train/data.mdb": b"t", "release/MJ/MJ_valid/data.mdb": b"v", "release/read.me": b"r"}


@pytest.mark.parametrize("make", MAKERS)
def test_of_an_archive_only_the_part_inside_is_taken(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", RELEASE)
    lay_out({"x": archive}, tmp_path / "out", "MJ/MJ_valid")
    assert files(tmp_path / "out") == {"data.mdb": b"v"}
    lay_out({"x": archive}, tmp_path / "both", "MJ")
    assert files(tmp_path / "both") == {"MJ_train/data.mdb": b"t", "MJ_valid/data.mdb": b"v"}
    with pytest.raises(
        ValueError, match=r"archive: no folder 'MJ/MJ_test' is in it; there are \['release', 'release/MJ/"
    ):
        lay_out({"archive": archive}, tmp_path / "no", "MJ/MJ_test")


def test_a_part_that_stands_in_two_places_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", RELEASE | {"old/MJ/MJ_train/data.mdb": b"o"})
    with pytest.raises(ValueError, match="'MJ/MJ_train' is both release/MJ/MJ_train and old/MJ/MJ_train: give one"):
        lay_out({"archive": archive}, tmp_path / "out", "MJ/MJ_train")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("inner", [make_zip, make_tar_gz])
def test_archives_in_an_archive_are_unpacked_where_they_lie(make: Maker, inner: Maker, tmp_path: Path) -> None:
    suffix = "zip" if inner is make_zip else "tar.gz"
    pictures = inner(tmp_path / "inner", {"word_1.png": b"1", "more/word_2.png": b"2"}).read_bytes()
    archive = make(tmp_path / "archive", {f"set/pictures.{suffix}": pictures, "set/gt.txt": b"labels"})
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == {"set/word_1.png": b"1", "set/more/word_2.png": b"2", "set/gt.txt": b"labels"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archive", "inner", "out"]


def test_a_part_inside_an_archive_in_an_archive_is_found(tmp_path: Path) -> None:
    training = make_zip(tmp_path / "training", {"training/MJ/MJ_train/data.mdb": b"t", "training/ST/data.mdb": b"s"})
    evaluation = make_zip(tmp_path / "evaluation", {"evaluation/SVT/data.mdb": b"e"})
    content = {"training.zip": training.read_bytes(), "evaluation.zip": evaluation.read_bytes()}
    archive = make_zip(tmp_path / "archive", content)
    lay_out({"x": archive}, tmp_path / "out", "ST")
    assert files(tmp_path / "out") == {"data.mdb": b"s"}


def test_what_is_only_called_an_archive_stays_a_file(tmp_path: Path) -> None:
    unpack(make_zip(tmp_path / "archive", {"a/b.zip": b"no zip"}), tmp_path / "out")
    assert files(tmp_path / "out") == {"a/b.zip": b"no zip"}


def written(folder: Path, order: list[str]) -> dict[str, Path]:
    for file in order:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(CONTENT[file])
    return {path.relative_to(folder).as_posix(): path for path in folder_files(folder)}


def test_packing_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    one = written(tmp_path / "one", list(CONTENT))
    written(tmp_path / "two", list(CONTENT)[::-1])
    os.utime(tmp_path / "two" / "a" / "one.txt", (0, 0))
    (tmp_path / "two" / "a" / "one.txt").chmod(0o700)
    (tmp_path / "two" / "lock.mdb").write_bytes(b"changes when it is read")
    pack_tar(one, tmp_path / "one.tar")
    pack_tar(written(tmp_path / "two", []), tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    unpack(tmp_path / "one.tar", tmp_path / "out")
    assert files(tmp_path / "out") == CONTENT


def test_a_linked_folder_is_not_left_out_silently(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="linked: is a link to a folder"):
        folder_files(tmp_path / "data")
