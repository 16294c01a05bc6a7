"""Unpacking zip and tar files without trusting them, and packing folders so that equal content gives equal bytes."""

import dataclasses
import errno
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import IO

from wordmill.sources.leftovers import is_leftover
from wordmill.sources.members import SUFFIXES, Member, kind_of, members, misnamed
from wordmill.sources.spelling import ends_alike
from wordmill.store.files import atomic_folder

CHUNK = 1 << 20  # bytes
DEPTH = 64  # folders in a member's path
NEVER_PACKED = ("lock.mdb", ".mdb-lock", ".lmdb-lock")  # ends of names: LMDB writes to them when it reads


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What archives may unpack to, those inside them included; more is taken for an attack, or for a mistake."""

    entries: int = 20_000_000
    total_bytes: int = 1 << 40
    ratio: int = 200  # unpacked bytes to the archives' bytes,
    free_bytes: int = 100 << 20  # from so many unpacked bytes on


def lay_out(
    files: dict[str, Path], folder: Path, inside: str = "", limits: Limits | None = None, source: str = ""
) -> None:
    """Put fetched files, by name, below `folder`, which appears only when all is there.

    Archives are unpacked, other files linked, what operating systems leave behind is passed over. With `inside` only
    what lies below the folder of that name, or else of that name in another spelling, is taken, wherever it stands;
    archives in archives are unpacked where they lie. ValueError names the source, by default the files, and the member.
    Refused are paths that lead out, links, devices, names that stand twice, and more than the limits allow. The disk
    holds the archives, what is taken of them, and meanwhile one archive that lies in another.
    """
    packed_bytes = sum(path.stat().st_size for path in files.values())
    try:
        with atomic_folder(folder) as root, TemporaryDirectory(dir=folder.parent) as nested:
            for name, path in files.items():
                if wrong := misnamed(name, path):
                    raise ValueError(f"{name}: {wrong}" if len(files) > 1 or source else wrong)
            taken = {name: path for name, path in files.items() if not is_leftover(PurePosixPath(name))}
            layout = _Layout(root, Path(nested) / "archive", inside, limits or Limits(), packed_bytes)
            layout.take(taken)
            if inside and layout.found is None:  # as it is written
                layout = dataclasses.replace(layout, entries=0, written=0, loosely=True)
                layout.take(taken)
            if inside and layout.found is None:
                raise ValueError(f"no folder '{inside}' is in it; there are {sorted(layout.seen)[:8]}")
    except ValueError as error:
        told = f"{source or ', '.join(list(files)[:3])}: {error}"  # names may have bytes that cannot be written
        raise ValueError(told.encode("utf-8", "backslashreplace").decode()) from None


@dataclass
class _Layout:
    """A folder that is being filled, and what may still come."""

    root: Path
    nested: Path  # where the archive lies that was found in another
    inside: str
    limits: Limits
    packed_bytes: int
    entries: int = 0
    written: int = 0
    found: PurePosixPath | None = None  # the folder called `inside`
    loosely: bool = False  # or called so in another spelling
    seen: set[str] = field(default_factory=set)  # some folders, to name where there is no `inside`

    def take(self, files: dict[str, Path]) -> None:
        """Take what belongs here of fetched files, by name."""
        for name, path in files.items():
            if kind_of(path) == "file":
                self.link(PurePosixPath(name), path)
            else:
                self.unpack(path, PurePosixPath())

    def link(self, name: PurePosixPath, path: Path) -> None:
        """Link a single file."""
        if target := self._target(name):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)

    def unpack(self, archive: Path, at: PurePosixPath) -> None:
        """Unpack an archive that lies in the folder `at`."""
        name = "its start"
        try:
            for member in members(archive, kind_of(archive)):
                name = member.name
                self.entries += 1
                if self.entries > self.limits.entries:
                    raise ValueError(f"more than {self.limits.entries} entries")
                self._member(member, at / safe_path(name), archive == self.nested)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, RuntimeError) as error:
            raise ValueError(f"damaged or cut off at {name}: {error}: fetch it again") from None
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ValueError(f"{name}: stands there twice, or as a file and a folder") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise ValueError(f"{name[:80]}...: a name of {len(name)} characters is too long") from None
            if error.errno:
                raise
            raise ValueError(f"damaged or cut off at {name}: {error}: fetch it again") from None  # by gzip and bzip2

    def _member(self, member: Member, path: PurePosixPath, in_nested: bool) -> None:
        if is_leftover(path):
            return
        target = self._target(path)
        if member.open is None:
            if target:
                target.mkdir(parents=True, exist_ok=True)
            return
        if path.name.lower().endswith(SUFFIXES):
            if in_nested:
                raise ValueError(f"{path}: an archive in an archive in an archive: unpack the outer one first")
            with member.open() as content:
                self._write(content, self.nested, path)
            self._unpack_nested(path, target)
        elif target:
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as content:
                self._write(content, target, path)

    def _unpack_nested(self, path: PurePosixPath, target: Path | None) -> None:
        if kind_of(self.nested) != "file":
            self.unpack(self.nested, path.parent)
        elif target:  # it is only called like an archive
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.nested, target)
        self.nested.unlink()

    def _write(self, content: IO[bytes], target: Path, where: PurePosixPath) -> None:
        """Write a file; what the archive declares is not believed, what arrives is counted."""
        most = min(self.limits.total_bytes, max(self.limits.free_bytes, self.limits.ratio * self.packed_bytes))
        with target.open("xb") as file:
            while chunk := content.read(CHUNK):
                self.written += len(chunk)
                if self.written > most:
                    raise ValueError(f"{where}: unpacks to more than the limits on size and on the ratio to the "
                                     "archive")  # fmt: skip
                file.write(chunk)

    def _target(self, path: PurePosixPath) -> Path | None:
        """Return where a member is to lie, None for one that does not lie below `inside`."""
        wanted = PurePosixPath(self.inside).parts
        for end in range(len(wanted), len(path.parts) + 1):
            parts = path.parts[:end]
            if parts[end - len(wanted) :] == wanted or (self.loosely and ends_alike("/".join(parts), self.inside)):
                found = PurePosixPath(*parts)
                if self.found not in (None, found):
                    raise ValueError(f"'{self.inside}' is both {self.found} and {found}: give one of them alone")
                self.found = found
                return self.root / PurePosixPath(*path.parts[end:])
        if len(self.seen) < 100:
            self.seen.add(str(path.parent))
        return None


def safe_path(name: str) -> PurePosixPath:
    """Return a member's name as a relative path; ValueError for one that leads out of the folder."""
    windows = PureWindowsPath(name)
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if windows.drive or windows.root or ".." in parts or "\0" in name or not name or len(parts) > DEPTH:
        raise ValueError(f"{name[:200]!r}: expected a path inside the archive's folder, of at most {DEPTH} parts")
    return PurePosixPath(*parts)


def inside_folder(root: Path, name: str) -> Path:
    """Return the one folder below `root` whose path ends with `name`, or else with another spelling of that."""
    wanted = PurePosixPath(name).parts
    folders = (Path(place, folder) for place, names, _ in os.walk(root) for folder in names)
    paths = [(path, path.relative_to(root)) for path in folders]
    found = [path for path, here in paths if here.parts[-len(wanted) :] == wanted]
    found = found or [path for path, here in paths if ends_alike(str(here), name)]
    if len(found) != 1:
        raise ValueError(f"{root}: expected one folder '{name}' below it, found {[str(path) for path in found[:4]]}")
    return found[0]


def folder_files(folder: Path) -> list[Path]:
    """Return the files below a folder that belong to its data, in order."""
    for path in folder.rglob("*"):
        if path.is_symlink() and path.is_dir():
            raise ValueError(f"{path}: is a link to a folder: put the files themselves below {folder}")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(NEVER_PACKED)]
    files = [path for path in files if not is_leftover(path.relative_to(folder))]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def pack_tar(files: dict[str, Path], archive: Path) -> None:
    """Pack files, by name, into a tar whose bytes depend on their names and contents alone."""
    with tarfile.open(archive, "x", format=tarfile.PAX_FORMAT, encoding="utf-8") as file:
        for name, path in files.items():
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            with path.open("rb") as content:
                file.addfile(info, content)
