"""The licence text that goes with the glyph atlas: every package's own copyright file, repeated paragraphs once."""

import re
from pathlib import Path

COMMON = Path("/usr/share/common-licenses")
COMMON_NEEDED = ("Apache-2.0", "CC0-1.0")
INTRODUCTION = """\
Licences of a glyph atlas (atlas*.bin) and the word lists (words_*.txt.xz)

The atlas holds small bitmaps of the glyphs of the faces below, rendered from the named Debian packages and
modified (scaled to one size, alpha reduced to 8 or 16 levels). It is no font and bears no font's name;
names in its index and here only say where a bitmap comes from. Each part stays under the licence of its face;
where a file offers a choice, the table names the licence that is used. The copyright file of each package
follows in full, without the stanzas on Debian's packaging; a paragraph that stands word for word in an
earlier entry is replaced by its number there. Licences that those files refer to on a Debian system come
last.
"""
_LONG = 60  # characters from which a repeated paragraph is replaced by a reference


def _stanzas(text: str) -> list[str]:
    """Stanzas of a copyright file that concern the font, not Debian's packaging or build scripts."""
    if not text.startswith("Format"):
        return [text]
    stanzas = re.split(r"\n\s*\n(?=[A-Z][A-Za-z-]*:)", text)
    return [s for s in stanzas if not re.match(r"Files:\s*debian/|License:\s*L?GPL", s)]


def _fold(text: str, seen: dict[str, int]) -> list[str]:
    """Paragraphs of one copyright file, numbered when new, as `[= 12-26]` when they stood before."""
    lines: list[str] = []
    run: list[int] = []
    for paragraph in (p.strip("\n") for p in re.split(r"\n[ \t]*\.?[ \t]*(?=\n)", text) if p.strip()):
        key = " ".join(paragraph.split())
        if len(key) >= _LONG and key in seen:
            run.append(seen[key])
            continue
        if run:
            lines.append(f"[= {', '.join(map(str, run))}]\n")
            run = []
        if len(key) >= _LONG:
            seen[key] = len(seen) + 1
            lines.append(f"[{seen[key]}]")
        lines.append(paragraph + "\n")
    if run:
        lines.append(f"[= {', '.join(map(str, run))}]\n")
    return lines


def _copyright(folder: Path, package: str) -> str:
    found = sorted((folder / package / "usr/share/doc").glob("*/copyright"))
    if not found:
        raise RuntimeError(f"{folder / package}: no copyright file in the package; leave it out of atlas_sources.txt")
    return found[0].read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")


def licence_text(
    folder: Path, sources: dict[str, str], names: dict[str, list[str]], versions: dict[str, str], words: str
) -> str:
    """One text: a table of packages and faces, then every copyright file, then the texts they refer to.

    `words` is the package of the word lists; "": there are none.
    """
    used = [package for package in sources if names[package]]
    parts = [INTRODUCTION, "Package, version: licence: faces' names\n"]
    parts += [f"fonts-{p} {versions['fonts-' + p]}: {sources[p]}: {', '.join(names[p])}" for p in used]
    if words:
        parts.append(f"{words} {versions[words]}: SCOWL, permissive: word lists\n")
    seen: dict[str, int] = {}
    for package in [f"fonts-{p}" for p in used] + [words] * bool(words):
        parts.append(f"\n{'=' * 100}\n{package} {versions[package]}\n")
        for stanza in _stanzas(_copyright(folder, package)):
            parts += _fold(stanza, seen)
    for name in COMMON_NEEDED:
        parts.append(f"\n{'=' * 100}\n{name}\n\n{(COMMON / name).read_text(encoding='utf-8')}")
    return "\n".join(parts) + "\n"
