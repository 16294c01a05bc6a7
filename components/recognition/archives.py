"""Unpacking zip and tar files without trusting them, and packing folders so that equal content gives equal bytes."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Literal

CHUNK = 1 << 20  # bytes
NEVER_PACKED = {"lock.mdb"}  # LMDB writes to it when it reads
OTHER_ARCHIVES = (b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may unpack to; more is taken for an attack, or for a mistake."""

    entries: int = 20_000_000
    total_bytes: int = 1 << 40
    ratio: int = 200  # unpacked bytes to the archive's bytes,
    free_bytes: int = 100 << 20  # from so many unpacked bytes on


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry of an archive: its name as written there, and its content, None for a folder."""

    name: str
    content: IO[bytes] | None


def kind_of(path: Path) -> Literal["zip", "tar", "tar.gz", "file"]:
    """Tell by its first bytes what a file is: an archive that `unpack` reads, or a single file."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        return "tar.gz"
    if head.startswith(OTHER_ARCHIVES):
        raise ValueError(f"{path}: found bzip2, xz, 7z, rar or zstd, expected zip, tar or tar.gz: pack it anew")
    return "tar" if head[257:262] == b"ustar" else "file"


def unpack(archive: Path, folder: Path, limits: Limits | None = None, source: str = "") -> None:
    """Unpack a zip, tar or tar.gz into `folder`, which appears only when all is there.

    ValueError names the source, by default the archive's path, and the member. Refused are paths that lead out,
    links, devices, names that stand twice, and more than the limits allow.
    """
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _unpack(archive, temporary, limits or Limits())
        temporary.replace(folder)
    except ValueError as error:
        raise ValueError(f"{source or archive}: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(archive: Path, folder: Path, limits: Limits) -> None:
    most = min(limits.total_bytes, max(limits.free_bytes, limits.ratio * archive.stat().st_size))
    written, name = 0, "its start"
    try:
        for number, member in enumerate(_members(archive), start=1):
            name = member.name
            if number > limits.entries:
                raise ValueError(f"more than {limits.entries} entries")
            target = folder / safe_path(name)
            if member.content is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                written += _write(member.content, target, most - written, name)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"damaged or cut off at {name}: {error}: fetch it again") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ValueError(f"{name}: stands there twice, or as a file and a folder") from None


def safe_path(name: str) -> PurePosixPath:
    """Return a member's name as a relative path; ValueError for one that leads out of the folder."""
    windows = PureWindowsPath(name)
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if windows.drive or windows.root or ".." in parts or "\0" in name or not name:
        raise ValueError(f"{name!r}: expected a path inside the archive's folder")
    return PurePosixPath(*parts)


def _write(content: IO[bytes], target: Path, most: int, where: str) -> int:
    """Write one file and return its size; what the archive declares is not believed, what arrives is counted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("xb") as file:
        while chunk := content.read(CHUNK):
            written += len(chunk)
            if written > most:
                raise ValueError(f"{where}: unpacks to more than the limits on size and on the ratio to the archive")
            file.write(chunk)
    return written


def _members(archive: Path) -> Iterator[Member]:
    kind = kind_of(archive)
    if kind == "zip":
        return _zip_members(archive)
    if kind == "file":
        raise ValueError("no archive: expected zip, tar or tar.gz")
    return _tar_members(archive, "r|gz" if kind == "tar.gz" else "r|")


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            where = info.filename
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{where}: is a link or a device, expected files and folders only")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{where}: encrypted, or packed by an unusual method: pack it anew with deflate")
            if info.is_dir():
                yield Member(name=_zip_name(info), content=None)
                continue
            with file.open(info) as content:
                yield Member(name=_zip_name(info), content=content)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name as UTF-8, which many programs write without the flag that says so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _tar_members(archive: Path, mode: Literal["r|", "r|gz"]) -> Iterator[Member]:
    if mode == "r|" and not _ends_in_zeros(archive):  # a tar that is cut between two members reads like a whole one
        raise ValueError("cut off: a tar ends with a block of zeros: fetch it again")
    with tarfile.open(archive, mode, encoding="utf-8") as file:
        for info in file:
            if info.isdir():
                yield Member(name=info.name, content=None)
            elif info.isreg():
                yield Member(name=info.name, content=file.extractfile(info))
            else:
                raise ValueError(f"{info.name}: is a link or a device, expected files and folders only")


def _ends_in_zeros(archive: Path) -> bool:
    with archive.open("rb") as file:
        file.seek(-min(512, archive.stat().st_size), os.SEEK_END)
        return not any(file.read())


def folder_files(folder: Path) -> list[Path]:
    """Return the files below a folder that `pack_folder` packs, in its order."""
    for path in folder.rglob("*"):
        if path.is_symlink() and path.is_dir():
            raise ValueError(f"{path}: is a link to a folder: put the files themselves below {folder}")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in NEVER_PACKED]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def pack_folder(folder: Path, archive: Path) -> None:
    """Pack a folder's files into a tar whose bytes depend on their names and contents alone."""
    with tarfile.open(archive, "x", format=tarfile.PAX_FORMAT, encoding="utf-8") as file:
        for path in folder_files(folder):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size = path.stat().st_size
            with path.open("rb") as content:
                file.addfile(info, content)
