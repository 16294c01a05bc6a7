"""Make the atlases of Chinese characters and of street signs' faces, and their licence text, from Debian packages.

Needs what tools/build_atlas.py needs:
    /tmp/atlas/bin/python -m tools.build_script_atlases wordmill/synth/data
The same packages and the same FreeType give the same bytes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import freetype

from tools.atlas_faces import RenderedFace, pack_atlas, read_sources, rendered, to_capitals, unpack, write_atlas
from tools.atlas_licences import licence_text

CHARSET = Path("wordmill/text/charsets/chinese6623.txt")
CHINESE_EM_PX = 26
CHINESE_LEVELS = 7  # alpha is kept as 0..LEVELS
CHINESE_FACES = ("NotoSansCJK-Bold.ttc", "NotoSerifCJK-Regular.ttc")
CHINESE_PLACE = 2  # of simplified Chinese in those collections
SIGN_LEVELS = 15
SIGN_CHARACTERS = (
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyzÀÂÆÇÈÉÊËÎÏÔÙÛÜŒŸàâæçèéêëîïôùûüœÿ'-.,()/&°"
)
SIGN_FACES = (
    "Cabin-Bold.otf", "Cabin-SemiBold.otf", "ClearSans-Bold.ttf", "DejaVuSansCondensed-Bold.ttf",
    "DejaVuSansCondensed.ttf", "Lato-Bold.ttf", "LiberationSans-Bold.ttf", "LiberationSans-Regular.ttf",
    "OpenSans-CondBold.ttf", "OpenSans-Semibold.ttf", "PTN77F.ttf", "RobotoCondensed-Bold.ttf",
    "RobotoCondensed-Regular.ttf",
)  # fmt: skip


def find_font(folder: Path, name: str) -> tuple[str, Path]:
    """The package, without `fonts-`, that has a font file, and the file."""
    found = sorted(path for path in folder.glob(f"fonts-*/**/{name}") if not path.is_symlink())
    if not found:
        raise RuntimeError(f"{name} is in none of the packages any more: choose another face")
    return found[0].relative_to(folder).parts[0].removeprefix("fonts-"), found[0]


def render_face(folder: Path, name: str, characters: str, place: int = 0, em_px: int = 0) -> RenderedFace:
    """Render a font file's characters, in pixels of the em or, where that is 0, to the capitals' height."""
    package, path = find_font(folder, name)
    face = freetype.Face(str(path), place)
    if em_px:
        face.set_pixel_sizes(0, em_px)
    elif not to_capitals(face):
        raise RuntimeError(f"{name} has no capital H: choose another face")
    if missing := [c for c in characters if face.get_char_index(c) == 0]:
        print(f"{name} lacks {''.join(missing)}", file=sys.stderr)
    return rendered(package, face, characters)


def main() -> None:
    """Build everything into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    sources = read_sources(Path(__file__).with_name("script_atlas_sources.txt"))
    characters = "".join(CHARSET.read_text(encoding="utf-8").split())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        versions = unpack([f"fonts-{package}" for package in sources], folder)
        chinese = [render_face(folder, name, characters, CHINESE_PLACE, CHINESE_EM_PX) for name in CHINESE_FACES]
        signs = [render_face(folder, name, SIGN_CHARACTERS) for name in SIGN_FACES]
        names = {p: sorted({f.name for f in [*chinese, *signs] if f.package == p}) for p in sources}
        text = licence_text(folder, sources, names, versions, "")
    write_atlas(out / "LICENCES_scripts", text.encode())
    write_atlas(out / "atlas_chinese.bin", pack_atlas(chinese, characters, CHINESE_LEVELS))
    write_atlas(out / "atlas_signs.bin", pack_atlas(signs, SIGN_CHARACTERS, SIGN_LEVELS))


if __name__ == "__main__":
    main()
