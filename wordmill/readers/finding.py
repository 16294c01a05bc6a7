"""Finding the picture files that the paths of a list mean, whatever system wrote the paths and named the files."""

import difflib
import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from wordmill.sources.spelling import alike, spellings

MOST_BYTES = 64 << 20  # of a picture file
MOST_NAMES = 10_000  # of a folder that is searched for a name
HINTS = 20  # missing files of a list for which the nearest one is looked for
LIKE = 0.8  # from which share on two names are near
ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\")


class Finder:
    """Reads files by the paths of a list, which count from the first of the folders, or else from the next."""

    def __init__(self, folders: list[str]) -> None:
        """Take folders, each with a slash behind it."""
        self.folders, self.hints = folders, HINTS

    def read(self, path: str) -> tuple[bytes, str]:
        """Return a picture file's bytes, and what is wrong with it."""
        if ABSOLUTE.match(path) or "\0" in path or _leads_out(path):
            return b"", f"picture file outside the data set{self._nearest_end(path)}"
        for folder in self.folders:
            try:
                return _read(folder + path)
            except FileNotFoundError:
                continue
            except OSError as error:
                return b"", f"picture file not readable: {error.strerror}"
        return self._read_meant(path)

    def meant(self, path: str) -> list[Path]:
        """Return the files that a path may mean: one, that is so written, or those which are spelled in another way."""
        for folder in self.folders:
            if os.path.isfile(folder + path):
                return [Path(folder + path)]
        return [Path(os.fsdecode(place)) for place in self._spelled(path)]

    def _read_meant(self, path: str) -> tuple[bytes, str]:
        """Read the one file that a path means which is spelled in another way there."""
        found = self._spelled(path)
        if len(found) > 1:
            return b"", f"picture file spelled in several ways: {path} may be {' and '.join(map(readable_name, found))}"
        for place in found:
            return _read(place)
        return b"", f"picture file missing{self._nearest(path)}"

    def _spelled(self, path: str) -> list[bytes]:
        """Return the files that a path means which are spelled in another way there, in order."""
        found = {os.path.realpath(place): place for place in self._spellings(path) if os.path.isfile(place)}
        return sorted(found.values()) or self._in_other_case(path)

    def _spellings(self, path: str) -> Iterator[bytes]:
        """Give the ways in which other systems write a path."""
        forms = {form for plain in (path, path.replace("\\", "/")) for form in (plain, plain.strip(), unquote(plain))}
        for form in sorted(forms):
            for folder in self.folders:
                yield from (os.fsencode(folder) + name for name in sorted(spellings(form)) if not _leaves(name))

    def _in_other_case(self, path: str) -> list[bytes]:
        """Return the files whose paths differ in their case alone."""
        found: list[bytes] = []
        for folder in self.folders:
            places = [os.fsencode(folder)]
            for part in path.replace("\\", "/").strip().split("/"):
                places = [os.path.join(place, name) for place in places for name in _names(place)
                          if alike(os.fsdecode(name)) == alike(part)]  # fmt: skip
            found += [place for place in places if os.path.isfile(place)]
        return sorted(set(found))

    def _nearest(self, path: str) -> str:
        """Name the file that a missing one looks like, of the first that are missing."""
        self.hints -= 1
        if self.hints < 0:
            return ""
        parent, _, name = path.replace("\\", "/").rpartition("/")
        for folder in self.folders:
            names = [readable_name(other) for other in _names(os.fsencode(folder + parent))]
            if close := difflib.get_close_matches(name, names, n=1, cutoff=LIKE):
                return f": the nearest there is {os.path.join(parent, close[0])}"
            if not path.isascii() and (strange := [name for name in names if "\\x" in name]):
                return f": names there are in another encoding, such as {os.path.join(parent, strange[0])}"
        end = self._end(path)
        return f": {end} is there: paths count from the list's folder" if end else ""

    def _nearest_end(self, path: str) -> str:
        """Name the file that an absolute path ends with."""
        end = self._end(path)
        return f": {path} is of another machine, {end} is there: paths count from the list's folder" if end else ""

    def _end(self, path: str) -> str:
        """Return the longest end of a path that is a file below the folders, "" for none."""
        parts = path.replace("\\", "/").split("/")
        for start in range(1, len(parts)):
            end = "/".join(parts[start:])
            if end and "\0" not in end and not _leads_out(end) and any(os.path.isfile(f + end) for f in self.folders):
                return end
        return ""


def _leads_out(path: str) -> bool:
    return ".." in path.replace("\\", "/").split("/")


def _leaves(name: bytes) -> bool:
    return b".." in name.replace(b"\\", b"/").split(b"/") or b"\0" in name


def _read(path: str | bytes) -> tuple[bytes, str]:
    """Return a file's bytes, and why they are no picture's; plain system calls take half of the time of Path's."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not be waited for
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return b"", f"no picture file of at most {MOST_BYTES >> 20} MiB"
        return os.read(file, found.st_size), ""
    finally:
        os.close(file)


@lru_cache(maxsize=16)
def _names(folder: bytes) -> tuple[bytes, ...]:
    """Return the names in a folder, none of one that is very large or not there."""
    try:
        with os.scandir(folder) as entries:
            names = tuple(entry.name for _, entry in zip(range(MOST_NAMES + 1), entries, strict=False))
    except OSError:
        return ()
    return names if len(names) <= MOST_NAMES else ()


def readable_name(name: bytes) -> str:
    """Return a file's name for people, whatever its bytes are."""
    return name.decode("utf-8", "backslashreplace")
