"""Glyphs out of font files, and the atlas files that they are stored in."""

import json
import lzma
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import freetype
import numpy as np
import numpy.typing as npt

from wordmill.store.files import write_atomically

CAPITAL_PX = 28  # height of "H" in the atlas of Latin faces
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]

Pixels = npt.NDArray[np.uint8]
RawGlyph = tuple[Pixels, int, int, int]  # alpha (h, w) uint8, left px, top px, advance in quarter px


@dataclass(frozen=True, kw_only=True)
class RenderedFace:
    """One face of a package with its rendered glyphs by character."""

    package: str
    name: str
    style: str
    glyphs: dict[str, RawGlyph]

    @property
    def family(self) -> str:
        """The first word of the name: what faces of one design share."""
        return re.sub(r"\d+$", "", re.split(r"[^a-z0-9]+", self.name.lower())[0])


def unpack(packages: list[str], folder: Path) -> dict[str, str]:
    """Download Debian packages and unpack each into `folder/<package>`; returns package -> version."""
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    versions = {}
    for deb in sorted(folder.glob("*.deb")):
        package, version, _ = deb.name.split("_")
        versions[package] = version.replace("%3a", ":")
        (folder / package).mkdir()
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / package)], check=True)
    missing = sorted(set(packages) - set(versions))
    if missing:
        raise RuntimeError(f"{folder}: apt-get left out {', '.join(missing)}; run `apt-get update` and try again")
    return versions


def draw_glyph(face: freetype.Face, character: str) -> RawGlyph | None:
    """Render one unhinted glyph; None where it has no ink."""
    face.load_char(character, freetype.FT_LOAD_RENDER | freetype.FT_LOAD_NO_HINTING)
    slot = face.glyph
    bitmap = slot.bitmap
    if not bitmap.rows or not bitmap.width:
        return None
    alpha = np.array(bitmap.buffer, np.uint8).reshape(bitmap.rows, bitmap.pitch)[:, : bitmap.width]
    return alpha, slot.bitmap_left, slot.bitmap_top, round(slot.advance.x / 16)


def to_capitals(face: freetype.Face) -> bool:
    """Set the size at which "H" is CAPITAL_PX high; whether the face has an "H"."""
    face.set_pixel_sizes(0, 100)
    capital = draw_glyph(face, "H")
    if capital is not None:
        face.set_pixel_sizes(0, max(16, min(64, round(100 * CAPITAL_PX / capital[0].shape[0]))))
    return capital is not None


def rendered(package: str, face: freetype.Face, characters: str) -> RenderedFace:
    """A face, with family and style as its file has them, and those of the characters that it has and that have ink."""
    family, style = (text.decode("latin-1") if text else "" for text in (face.family_name, face.style_name))
    drawn = {c: draw_glyph(face, c) for c in characters if face.get_char_index(c)}
    glyphs = {c: glyph for c, glyph in drawn.items() if glyph is not None}
    return RenderedFace(package=package, name=family, style=style, glyphs=glyphs)


def read_sources(path: Path) -> dict[str, str]:
    """Package name without `fonts-` -> licence, from a list beside these tools."""
    sources: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            licence, packages = line.split(":", 1)
            sources.update(dict.fromkeys(packages.split(), licence))
    return dict(sorted(sources.items()))


def pack_atlas(faces: Sequence[RenderedFace], characters: str, levels: int) -> bytes:
    """The atlas: length of the index (4 bytes, little-endian), the index as JSON, one stream per face."""
    streams = [_pack_face(face, characters, levels) for face in faces]
    entries = [{"family": face.family, "name": face.name, "style": face.style, "package": face.package,
                "bytes": len(stream)} for face, stream in zip(faces, streams, strict=True)]  # fmt: skip
    index = {"characters": characters, "levels": levels, "faces": entries}
    head = json.dumps(index, separators=(",", ":")).encode()
    return len(head).to_bytes(4, "little") + head + b"".join(streams)


def _pack_face(face: RenderedFace, characters: str, levels: int) -> bytes:
    """Metrics table (n, 5) int16 (width, height, left, top, advance), then the alpha of all glyphs, compressed."""
    table = np.zeros((len(characters), 5), "<i2")
    pixels = []
    for row, character in enumerate(characters):
        if character in face.glyphs:
            alpha, left, top, advance = face.glyphs[character]
            alpha = alpha[:96, :128]
            table[row] = alpha.shape[1], alpha.shape[0], left, top, advance
            pixels.append(((alpha.astype(np.uint16) * levels + 127) // 255).astype(np.uint8).tobytes())
    return lzma.compress(table.tobytes() + b"".join(pixels), lzma.FORMAT_RAW, filters=FILTERS)


def write_atlas(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    write_atomically(path, content)
    print(f"{path}: {len(content):,} bytes")
