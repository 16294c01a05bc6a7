"""Make the glyph atlas, the word lists and the licence text of the word-image renderer from Debian packages.

Needs a Debian 12 machine with `apt-get update` done, and freetype-py, NumPy and OpenCV in an environment of its own:
    python -m venv /tmp/atlas && /tmp/atlas/bin/pip install freetype-py numpy opencv-python-headless
    /tmp/atlas/bin/python -m tools.build_atlas wordmill/synth/data
The same packages and the same FreeType give the same bytes.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import freetype
import numpy as np
import numpy.typing as npt

from tools.atlas_faces import Pixels, RenderedFace, pack_atlas, read_sources, rendered, to_capitals, unpack, write_atlas
from tools.atlas_licences import licence_text
from tools.word_lists import pack_words

ALNUM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SYMBOLS = "$%&.,'-!:/#?()"
LEVELS = 15  # alpha is kept as 0..LEVELS
BOX = 12  # side of the thumbnail that faces are compared by
SAME_FACE = 0.965  # mean correlation of thumbnails above which two faces look alike
LEGIBLE = {"aenigma": 0.6}
LEGIBLE_ELSE = 0.25  # share of glyphs whose nearest glyph in other families is the same character
FACES_PER_FAMILY = {"aenigma": 2}
FACES_PER_FAMILY_ELSE = 10
NOT_TEXT = ("Keyboard", "Initials", "Outline O", "Math")
WORD_PACKAGES = {"common": "wamerican-small", "large": "wamerican-large"}

Thumbnails = npt.NDArray[np.float32]


def read_face(package: str, path: Path) -> RenderedFace | None:
    """Render a font file so that capitals are CAPITAL_PX high; None if it is bitmap-only or lacks a character."""
    face = freetype.Face(str(path))
    if not face.is_scalable or any(face.get_char_index(c) == 0 for c in ALNUM):
        return None
    if not to_capitals(face):
        return None
    found = rendered(package, face, ALNUM + SYMBOLS)
    lower = {found.glyphs[c][0].tobytes() for c in ALNUM[36:] if c in found.glyphs}
    return None if any(c not in found.glyphs for c in ALNUM) or len(lower) < 25 else found


def read_faces(folder: Path, packages: list[str]) -> list[RenderedFace]:
    """All usable faces of the packages, plainest style first within a package."""
    faces = []
    for package in packages:
        root = folder / f"fonts-{package}"
        files = [p for p in root.rglob("*") if p.suffix.lower() in {".ttf", ".otf", ".pfb"} and not p.is_symlink()]
        found = [face for path in sorted(files) if (face := read_face(package, path)) is not None]
        faces += [face for face in found if not any(word in face.name for word in NOT_TEXT)]
    return faces


def thumbnail(alpha: Pixels) -> Thumbnails:
    """A glyph centred in a BOX x BOX square, zero mean and unit length, (BOX * BOX,) float32."""
    height, width = alpha.shape
    scale = BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((BOX, BOX), np.float32)
    top, left = (BOX - size[1]) // 2, (BOX - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    centred = square.ravel() - square.mean()
    return np.asarray(centred / (np.linalg.norm(centred) + 1e-6))


def legibility(faces: list[RenderedFace], thumbnails: Thumbnails) -> list[float]:
    """Per face the share of its glyphs that are nearest to the same character among other families' plain faces."""
    same = str.maketrans("0il", "o11")  # one shape in many faces
    names = np.array([ord(c.lower().translate(same)) for c in ALNUM])
    seen: Counter[str] = Counter()
    plain = []
    for index, face in enumerate(faces):
        seen[face.family] += 1
        if face.package not in LEGIBLE and seen[face.family] <= 2:
            plain.append(index)
    bank = thumbnails[plain].reshape(-1, BOX * BOX)
    bank_names = np.tile(names, len(plain))
    bank_family = np.repeat([faces[i].family for i in plain], len(ALNUM))
    scores = []
    for face, own in zip(faces, thumbnails, strict=True):
        likeness = own @ bank.T
        likeness[:, bank_family == face.family] = -1
        scores.append(float((bank_names[likeness.argmax(1)] == names).mean()))
    return scores


def select_faces(faces: list[RenderedFace]) -> list[RenderedFace]:
    """Legible faces, none like another, a limited number per family."""
    thumbnails = np.stack([[thumbnail(face.glyphs[c][0]) for c in ALNUM] for face in faces])
    scores = legibility(faces, thumbnails)
    flat = thumbnails.reshape(len(faces), -1)
    kept: list[int] = []
    per_family: Counter[str] = Counter()
    for index, face in enumerate(faces):
        limit = FACES_PER_FAMILY.get(face.package, FACES_PER_FAMILY_ELSE)
        if scores[index] < LEGIBLE.get(face.package, LEGIBLE_ELSE) or per_family[face.family] >= limit:
            continue
        if kept and (flat[kept] @ flat[index]).max() > SAME_FACE * len(ALNUM):
            continue
        kept.append(index)
        per_family[face.family] += 1
    return [faces[i] for i in kept]


def words(folder: Path, package: str) -> set[str]:
    """Lower-case English words of 2 to 16 letters from a SCOWL package."""
    found: set[str] = set()
    for path in sorted((folder / package / "usr/share/dict").iterdir()):
        if not path.is_symlink():
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            found.update(w.lower() for w in lines if w.isascii() and w.isalpha() and 2 <= len(w) <= 16)
    return found


def main() -> None:
    """Build everything into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    sources = read_sources(Path(__file__).with_name("atlas_sources.txt"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        versions = unpack([f"fonts-{p}" for p in sources] + list(WORD_PACKAGES.values()), folder)
        faces = select_faces(read_faces(folder, list(sources)))
        common, large = (words(folder, package) for package in WORD_PACKAGES.values())
        names = {p: sorted({f.name for f in faces if f.package == p}) for p in sources}
        write_atlas(out / "LICENCES", licence_text(folder, sources, names, versions, WORD_PACKAGES["large"]).encode())
    for name, chosen in (("common", common), ("large", large - common)):
        write_atlas(out / f"words_{name}.txt.xz", pack_words(chosen))
    write_atlas(out / "atlas.bin", pack_atlas(faces, ALNUM + SYMBOLS, LEVELS))
    print(f"{len(faces)} faces, {len({f.name for f in faces})} names, {len({f.family for f in faces})} families, "
          f"FreeType {'.'.join(map(str, freetype.version()))}", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
