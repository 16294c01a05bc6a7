import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
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


@pytest.mark.parametrize(
    ("inside", "folder"),
    [
        ("words", b"Words"),
        ("caf\u00e9", "cafe\u0301".encode()),
        ("图片", "图片".encode("gbk")),
        ("ソース/表", "ソース/表".encode("shift_jis")),  # with backslashes' bytes, which are taken for them
        ("words", b"outer/WORDS"),
    ],
)
def test_a_part_is_found_in_another_spelling_where_none_is_so_written(
    inside: str, folder: bytes, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", encoding="utf-8") as file:
        for name in (folder + b"/a.png", b"a.png", b"swords/b.png"):
            file.addfile(tarfile.TarInfo(os.fsdecode(name)))
    lay_out({"x.tar": tmp_path / "x.tar"}, tmp_path / "out", inside)
    assert files(tmp_path / "out") == {"a.png": b""}


def test_a_part_as_it_is_written_goes_before_other_spellings(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for name in ("Words/a.png", "words/b.png", "WORDS/c.png"):
            file.addfile(tarfile.TarInfo(name))
    lay_out({"x.tar": tmp_path / "x.tar"}, tmp_path / "out", "words")
    assert files(tmp_path / "out") == {"b.png": b""}
    with pytest.raises(ValueError, match="x.tar: 'worDS' is both Words and words: give one of them alone"):
        lay_out({"x.tar": tmp_path / "x.tar"}, tmp_path / "again", "worDS")


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


LEFT_BEHIND = {
    "__MACOSX/words/._a.png": b"\0\5\x16\7", "words/._a.png": b"\0\5\x16\7", "words/.DS_Store": b"\0\0\0\1Bud1",
    "words/Thumbs.db": b"\xd0\xcf", "words/desktop.ini": b"[.ShellClassInfo]", "words/@eaDir/a.png": b"nas",
}  # fmt: skip
DATA = {"words/a.png": b"a", "words/thumbs.db.png": b"no leftover", "words/_.png": b"nor this"}


@pytest.mark.parametrize("make", MAKERS)
def test_what_operating_systems_leave_behind_is_no_data(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", LEFT_BEHIND | DATA)
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == DATA
    lay_out({"x": archive}, tmp_path / "inside", "words")
    assert files(tmp_path / "inside") == {name.removeprefix("words/"): content for name, content in DATA.items()}


def test_a_folder_has_no_leftovers_either(tmp_path: Path) -> None:
    for name, content in (LEFT_BEHIND | DATA).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert [path.relative_to(tmp_path).as_posix() for path in folder_files(tmp_path)] == sorted(DATA)
    lay_out({name: tmp_path / name for name in LEFT_BEHIND | DATA}, tmp_path.with_name("laid out"))
    assert files(tmp_path.with_name("laid out")) == DATA


class RawInfo(zipfile.ZipInfo):
    """An entry whose name is these bytes, without the flag that says UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 (zipfile's name)
        return self.raw, self.flag_bits & ~0x800


def raw_zip(path: Path, content: dict[bytes, bytes], extra: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            info = RawInfo(name.decode("latin-1"))
            info.raw, info.extra = name, extra
            file.writestr(info, data)
    return path


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis"])
def test_names_that_are_not_utf8_keep_their_bytes(encoding: str, tmp_path: Path) -> None:
    name = "本.png".encode(encoding)
    unpack(raw_zip(tmp_path / "archive", {name: b"1"}), tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [name]


def test_a_name_in_infozips_field_for_unicode_counts_where_it_is_of_this_name(tmp_path: Path) -> None:
    for number, (of, expected) in enumerate([(b"\xb1\xbe.png", "本.png".encode()), (b"another", b"\xb1\xbe.png")]):
        body = struct.pack("<BL", 1, zlib.crc32(of)) + "本.png".encode()
        extra = struct.pack("<HH", 0x5455, 1) + b"x" + struct.pack("<HH", 0x7075, len(body)) + body
        unpack(raw_zip(tmp_path / f"{number}.zip", {b"\xb1\xbe.png": b"1"}, extra), tmp_path / f"out{number}")
        assert os.listdir(os.fsencode(tmp_path / f"out{number}")) == [expected]


def test_backslashes_in_a_zip_are_folders_too(tmp_path: Path) -> None:
    unpack(raw_zip(tmp_path / "archive", {b"crops\\": b"", b"crops\\a.png": b"1"}), tmp_path / "out")
    assert files(tmp_path / "out") == {"crops/a.png": b"1"}


def test_a_tar_of_the_seventh_unix_and_a_zip_that_was_not_split_are_unpacked(tmp_path: Path) -> None:
    old = bytearray(make_tar(tmp_path / "new", {"a.txt": b"1"}).read_bytes())
    old[257:265] = bytes(8)  # its magic
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    (tmp_path / "old.tar").write_bytes(old)
    unpack(tmp_path / "old.tar", tmp_path / "out")
    assert files(tmp_path / "out") == {"a.txt": b"1"}
    make_zip(tmp_path / "whole", {"b.txt": b"2"})
    (tmp_path / "unsplit.zip").write_bytes(b"PK00" + (tmp_path / "whole").read_bytes())
    unpack(tmp_path / "unsplit.zip", tmp_path / "other")
    assert files(tmp_path / "other") == {"b.txt": b"2"}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "good.zip",
            b"<!DOCTYPE html><html>Virus scan warning</html>",
            "it is a web page, or another answer of a server, such as a site shows before",
        ),
        ("good.tar.gz", b"\n <HTML>", "it is a web page"),
        ("good.zip", b"404: Not Found", "it is no zip or tar, it begins with b'404: Not'"),
        ("good.zip.001", b"PK\x03\x04", "it is a part of a split archive: join all parts"),
        ("good.z01", b"PK\x07\x08", "it is a part of a split archive"),
        ("good.tar.gz.02", b"\x1f\x8b", "it is a part of a split archive"),
        *(
            (name, b"any", "it is a part of a split archive")
            for name in (
                "good.tar.gz.aa",
                "good.tar.ab",
                "good.tar.gz.part-ac",
                "good.tar.partaa",
                "good.zip.part1",
                "good.part2.rar",
            )
        ),
        ("good.zip", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "it is a web page, or another answer"),
        ("good.zip", "<html>".encode("utf-16"), "it is a web page"),
        ("good.zip", b"", "it is empty: get it again"),
        ("good.7z", b"7z\xbc\xaf\x27\x1c", "it is 7z, rar or zstd, expected zip, tar"),
        ("labels.txt.gz", gzip.compress(b"a.png one\n", mtime=0), "damaged or cut off, or a file packed alone that is"),
        ("good.tar.xz", lzma.compress(b"a.png one\n" * 99), "damaged or cut off, or a file packed alone"),
    ],
)
def test_a_file_that_is_not_what_it_is_called_is_told_for_what_it_is(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "stored").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{name}: {told}"):
        lay_out({name: tmp_path / "stored"}, tmp_path / "out")


def test_a_message_shows_a_name_whatever_its_bytes_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"archive: .*\\udcb1.png: stands there twice"):
        unpack(raw_zip(tmp_path / "archive", {b"\xb1.png": b"1", b"./\xb1.png": b"2"}), tmp_path / "out")
