"""Make the atlas of letters beyond A to Z from the Debian packages whose faces `atlas.bin` has.

Needs what tools/build_atlas.py needs, and `atlas.bin` in the folder; its LICENCES are those of this atlas too:
    /tmp/atlas/bin/python -m tools.build_letter_atlas wordmill/synth/data
The same packages and the same FreeType give the same bytes.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import freetype

from tools.atlas_faces import RenderedFace, pack_atlas, rendered, to_capitals, unpack, write_atlas
from tools.build_atlas import ALNUM, SYMBOLS

LEVELS = 7  # alpha is kept as 0..LEVELS
DISPLAY = "aenigma"  # the package whose faces have no letters of other languages
RANGES = (
    (0x21, 0x7E), (0xA1, 0xAC), (0xAE, 0x17F), (0x218, 0x21B), (0x386, 0x386), (0x388, 0x3CE), (0x401, 0x45F),
    (0x490, 0x491), (0x1E80, 0x1E85), (0x1E9E, 0x1E9E), (0x1EA0, 0x1EF9), (0x2013, 0x2014), (0x2018, 0x201E),
    (0x2022, 0x2022), (0x2026, 0x2026), (0x2030, 0x2030), (0x2039, 0x203A), (0x20AC, 0x20AC), (0x2116, 0x2116),
    (0x2122, 0x2122),
)  # fmt: skip
LETTERS = "".join(chr(code) for first, last in RANGES for code in range(first, last + 1) if chr(code).isprintable())
CHARACTERS = "".join(dict.fromkeys(ALNUM + SYMBOLS + LETTERS))
LEAST = "ÀÂÄÅÇÈÉÊËÍÎÏÑÒÓÔÖØÙÚÛÜßàâäåçèéêëíîïñòóôöøùúûü"  # what a face must have to be taken
FaceEntry = dict[str, Any]


def known_faces(path: Path) -> list[FaceEntry]:
    """The entries of an atlas's index, display faces left out."""
    content = path.read_bytes()
    index = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])
    return [entry for entry in index["faces"] if entry["package"] != DISPLAY]


def files_by_face(folder: Path, package: str) -> dict[tuple[str, str], Path]:
    """The first file of each family's name and style in an unpacked package."""
    found: dict[tuple[str, str], Path] = {}
    paths = (folder / f"fonts-{package}").rglob("*")
    for path in sorted(p for p in paths if p.suffix.lower() in {".ttf", ".otf", ".pfb"} and not p.is_symlink()):
        face = freetype.Face(str(path))
        family, style = (text.decode("latin-1") if text else "" for text in (face.family_name, face.style_name))
        found.setdefault((family, style), path)
    return found


def render_faces(folder: Path, entries: list[FaceEntry]) -> list[RenderedFace]:
    """Of each name the first face that has the letters that it must have."""
    files = {package: files_by_face(folder, package) for package in {entry["package"] for entry in entries}}
    faces: dict[str, RenderedFace] = {}
    for entry in entries:
        path = files[entry["package"]].get((entry["name"], entry["style"]))
        if entry["name"] in faces or path is None:
            continue
        face = freetype.Face(str(path))
        if all(map(face.get_char_index, LEAST)) and to_capitals(face):
            found = rendered(entry["package"], face, CHARACTERS)
            if all(character in found.glyphs for character in ALNUM + LEAST):
                faces[entry["name"]] = found
    return list(faces.values())


def main() -> None:
    """Build the atlas into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    entries = known_faces(out / "atlas.bin")
    with tempfile.TemporaryDirectory() as scratch:
        unpack(sorted({f"fonts-{entry['package']}" for entry in entries}), Path(scratch))
        faces = render_faces(Path(scratch), entries)
    write_atlas(out / "atlas_letters.bin", pack_atlas(faces, CHARACTERS, LEVELS))
    print(f"{len(faces)} faces, {len({face.family for face in faces})} families, {len(CHARACTERS)} characters, "
          f"FreeType {'.'.join(map(str, freetype.version()))}", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
