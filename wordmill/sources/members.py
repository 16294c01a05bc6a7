"""The entries of zip and tar files, one after the other, without trusting what the archive says of itself."""

import bz2
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, cast

Kind = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "file"]

UNICODE_PATH = 0x7075  # Info-ZIP's extra field
DIRECTORY_BYTES = 256 << 20  # of a zip: what its list of entries may take, for it is read as a whole
HEADER_BYTES = 1 << 20  # of a tar: what an entry's extended header may take, for it is read as a whole
TRAILER_BYTES = 16 << 20  # behind the last entry of a tar
TAR_KINDS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b", "tar.gz"), (b"BZh", "tar.bz2"), (b"\xfd7zXZ", "tar.xz"),
)  # fmt: skip
OPEN: dict[Kind, Callable[[Path, str], Any]] = {
    "tar": open, "tar.gz": gzip.open, "tar.bz2": bz2.open, "tar.xz": lzma.open,
}  # fmt: skip
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")  # of archives
# By 7-Zip and others, by Info-ZIP, by WinRAR, and by split with its usual endings.
SPLIT = re.compile(r"\.(zip|tar|gz|tgz|bz2|xz|7z|rar)(\.?\d{2,3}|[.-]?(part)?[-.]?a[a-z]|[.-]part[-.]?\d+)$"
                   r"|\.z\d\d$|\.part\d+\.(zip|rar)$", re.IGNORECASE)  # fmt: skip
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
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK00"):  # the last of one that might have been split, and is not
        return "zip"
    for magic, kind in TAR_KINDS:
        if head.startswith(magic):
            return kind
    if head.startswith(OTHER_ARCHIVES):
        raise ValueError(f"{path}: found 7z, rar or zstd, expected zip, tar, tar.gz, tar.bz2 or tar.xz: pack it anew")
    return "tar" if head[257:262] == b"ustar" or _is_old_header(head) else "file"


def _is_old_header(head: bytes) -> bool:
    """Tell whether a tar of the seventh Unix begins so, which has no sign but the sum of its first header."""
    try:
        return bool(head.rstrip(b"\0")) and bool(tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").name)
    except tarfile.HeaderError:
        return False


def misnamed(name: str, path: Path) -> str:
    """Say of a file that is called an archive and is none, or packed alone, what it is and what to do, "" of others."""
    with path.open("rb") as file:
        head = file.read(512)
    if SPLIT.search(name):
        return ("it is a part of a split archive: join all parts in their order, as cat does, or let the program that "
                "split it do so, and give the whole")  # fmt: skip
    if head.startswith(tuple(magic for magic, _ in TAR_KINDS)) and not _holds_tar(path):
        return ("damaged or cut off, or a file packed alone that is no tar: fetch it again, or unpack it and give what "
                "was in it")  # fmt: skip
    if head.startswith(OTHER_ARCHIVES):
        return "it is 7z, rar or zstd, expected zip, tar, tar.gz, tar.bz2 or tar.xz: pack it anew"
    if not name.lower().endswith(SUFFIXES):
        return ""
    if not head:
        return "it is empty: get it again"
    if head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<"):
        return ("it is a web page, or another answer of a server, such as a site shows before a large file or to "
                "who has not logged in: get the file itself with a browser, and give its path")  # fmt: skip
    if kind_of(path) == "file":
        return f"it is no zip or tar, it begins with {head[:8]!r}: get it again, or give it its own name"
    return ""


def _holds_tar(path: Path) -> bool:
    """Tell whether a packed file begins as a tar does, or cannot be unpacked, of which others tell more."""
    try:
        with OPEN[kind_of(path)](path, "rb") as stream:
            head = stream.read(512)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return True
    return not any(head) or head[257:262] == b"ustar" or _is_old_header(head)


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
            if not where:
                raise ValueError("an entry without a name: made to deceive, or damaged")
            folder = info.is_dir() or (info.filename.endswith("\\") and not info.file_size)  # as Windows may write it
            yield Member(name=_zip_name(info), open=None if folder else partial(file.open, info))


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
    """Return the name in UTF-8, which an extra field may have (APPNOTE 4.6.9), and many programs write without a flag.

    Else its bytes are kept, as names of files on a disk are.
    """
    if info.flag_bits & 0x800:
        return info.filename
    try:
        raw = info.filename.encode("cp437")
    except UnicodeError:
        return info.filename
    return (_unicode_name(info.extra, raw) or raw).decode("utf-8", "surrogateescape")


def _unicode_name(extra: bytes, raw: bytes) -> bytes:
    """Return the name in Info-ZIP's field for it, empty where there is none or it is another name's."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and size > 5 and struct.unpack_from("<BL", body) == (1, zlib.crc32(raw)):
            return body[5:]
    return b""


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
