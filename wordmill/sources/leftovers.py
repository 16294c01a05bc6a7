"""What operating systems leave beside data, which is none."""

from pathlib import PurePath

FOLDERS = frozenset({"__macosx", ".spotlight-v100", ".trashes", ".fseventsd", "$recycle.bin", "@eadir",
                     "system volume information"})  # fmt: skip
FILES = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"})
APPLE_DOUBLE = "._"  # what macOS keeps of a file that another file system has no room for


def is_leftover(path: PurePath) -> bool:
    """Tell by a relative path whether a file or folder is no data."""
    name = path.name.lower()
    return name in FILES or name.startswith(APPLE_DOUBLE) or not FOLDERS.isdisjoint(map(str.lower, path.parts))
