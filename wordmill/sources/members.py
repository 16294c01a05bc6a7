"""The entries of zip and tar files, one after the other, without trusting what the archive says of itself."""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, cast

Kind = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "file"]

DIRECTORY_BYTES = 256 << 20  # of a zip: what its list of entries may take, for it is read as a whole
HEADER_BYTES = 1 << 20  # of a tar: what an entry's extended header may take, for it is read as a whole
TRAILER_BYTES = 16 << 20  # behind the last entry of a tar
TAR_KINDS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b", "tar.gz"), (b"BZh", "tar.bz2"), (b"\xfd7zXZ", "tar.xz"),
)  # fmt: skip
OPEN: dict[Kind, Callable[[Path, str], Any]] = {
    "tar": open, "tar.gz": gzip.open, "tar.bz2": bz2.open, "tar.xz": lzma.open,
}  # fmt: skip
OTHER_ARCHIVES = (b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE}
EXTENDED = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry of an archive: its name as written there, and a way to its content, None for a folder."""

    name: str
    open: Callable[[], IO[bytes]] | None


def kind_of(path: Path) -> Kind:
    """Tell by its first bytes what a file is: an archive that can be unpacked, or a single file."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    for magic, kind in TAR_KINDS:
        if head.startswith(magic):
            return kind
    if head.startswith(OTHER_ARCHIVES):
        raise ValueError(f"{path}: found 7z, rar or zstd, expected zip, tar, tar.gz, tar.bz2 or tar.xz: pack it anew")
    return "tar" if head[257:262] == b"ustar" else "file"


def members(archive: Path, kind: Kind) -> Iterator[Member]:
    """Yield the entries in turn; each must be read before the next. ValueError for what no data set needs."""
    return _zip_members(archive) if kind == "zip" else _tar_members(archive, kind)


def _zip_members(archive: Path) -> Iterator[Member]:
    size = _directory_bytes(archive)
    if size > DIRECTORY_BYTES:
        raise ValueError(f"its list of entries takes {size:,} bytes, more than {DIRECTORY_BYTES:,}: pack it as tar")
    with zipfile.ZipFile(archive) as file:
        _check_overlap(file.infolist())
        for info in file.infolist():
            where = info.filename
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{where}: is a link or a device, expected files and folders only")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{where}: encrypted, or packed by an unusual method: pack it anew with deflate")
            yield Member(name=_zip_name(info), open=None if info.is_dir() else partial(file.open, info))


def _directory_bytes(archive: Path) -> int:
    """Return the size of a zip's list of entries by the record at its end (APPNOTE 4.3.14 to 4.3.16), 0 for none."""
    with archive.open("rb") as file:
        end = file.seek(0, 2)
        start = file.seek(max(0, end - 22 - 0xFFFF - 20))
        tail = file.read()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) < place + 22:
            return 0
        (size,) = struct.unpack_from("<L", tail, place + 12)
        if place >= 20 and tail[place - 20 : place - 16] == b"PK\x06\x07":  # zip64
            (offset,) = struct.unpack_from("<Q", tail, place - 12)
            file.seek(min(offset, start + place))
            record = file.read(56)
            if len(record) == 56 and record[:4] == b"PK\x06\x06":
                (size,) = struct.unpack_from("<Q", record, 40)
        return int(size)


def _check_overlap(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse entries that share bytes of the archive: bombs unpack the same bytes again and again."""
    end, before = 0, ""
    for info in sorted(entries, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ValueError(f"{info.filename}: shares bytes with {before}: made to deceive, or damaged")
        end, before = info.header_offset + 30 + len(info.orig_filename) + info.compress_size, info.filename


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name as UTF-8, which many programs write without the flag that says so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class _CheckedHeader(tarfile.TarInfo):
    """A tar's header; what tarfile would take for the archive's end, or read into memory, is refused."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_CheckedHeader":
        """Read one header block."""
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the archive's end
            return super().frombuf(buf, encoding, errors)
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise ValueError(f"damaged or cut off: {error}: fetch it again") from None
        if info.type in EXTENDED and info.size > HEADER_BYTES:
            raise ValueError(f"{info.name}: has an extended header of {info.size:,} bytes: made to deceive")
        return info


def _tar_members(archive: Path, kind: Kind) -> Iterator[Member]:
    with (
        OPEN[kind](archive, "rb") as stream,
        tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", tarinfo=_CheckedHeader) as file,
    ):
        untyped = cast(Any, file)  # which says nothing of `members`, and that a plain file may have no content
        while info := file.next():
            untyped.members = []  # which would grow to gigabytes with millions of entries
            if info.type not in PLAIN:
                what = "sparse" if info.type == tarfile.GNUTYPE_SPARSE else "a link or a device"
                raise ValueError(f"{info.name}: is {what}, expected files and folders only")
            yield Member(name=info.name, open=None if info.isdir() else partial(untyped.extractfile, info))
        if len(stream.read(TRAILER_BYTES + 1)) > TRAILER_BYTES:  # to the end, where the checksums stand
            raise ValueError("it goes on behind its end: made to deceive")
