"""The pages as mkdocs takes them: `python -m tools.build_site`, which `make docs` calls before mkdocs.

README and docs go in with their links; a file or folder of the tree that they link to becomes a page of its own; the
reference has a page for each package of the library.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".state"
ORDER = ("README", "guide", "operations", "results", "development", "advisories")
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cpp": "cpp", ".html": "html"}


def build_pages(folder: Path) -> list[dict[str, object]]:
    """Write all pages into a folder, which is made anew; return the order in which a reader finds them."""
    shutil.rmtree(folder, ignore_errors=True)
    targets: set[Path] = set()
    for name in ORDER:
        page = ROOT / "README.md" if name == "README" else ROOT / "docs" / f"{name}.md"
        text, linked = with_links(page)
        targets |= linked
        _write(folder / site_place(page), text)
    for target in sorted(targets):
        _write(folder / site_place(target), source_page(target))
    references = dict(reference_pages())
    for name, text in references.items():
        _write(folder / "reference" / f"{name}.md", text)
    pages: list[dict[str, object]] = [{"Start" if name == "README" else name.title(): str(_page_place(name))}
                                      for name in ORDER]  # fmt: skip
    return [*pages, {"Reference": [{name: f"reference/{name}.md"} for name in references]}]


def with_links(page: Path) -> tuple[str, set[Path]]:
    """Return a page's text with its links as they lead within the site, and what else of the tree they lead to."""
    targets: set[Path] = set()

    def led(link: re.Match[str]) -> str:
        place, _, anchor = link[0].partition("#")
        if "://" in link[0] or not place:
            return link[0]
        target = (page.parent / place).resolve()
        if not target.exists():
            raise ValueError(f"{page.name}: link {link[0]}: there is no {target}")
        if not _is_page(target):
            targets.add(target)
            anchor = ""
        relative = os.path.relpath(site_place(target), site_place(page).parent)
        return f"{relative}#{anchor}" if anchor else relative

    return LINK.sub(led, page.read_text(encoding="utf-8")), targets


def site_place(target: Path) -> Path:
    """Return where a page, or a file or folder of the tree, lies within the site."""
    if _is_page(target):
        return _page_place(target.stem)
    inside = target.relative_to(ROOT)
    return Path("source", inside, "index.md") if target.is_dir() else Path("source", f"{inside}.md")


def source_page(target: Path) -> str:
    """Return a page with a file's text, or with the names in a folder."""
    title = f"# {target.relative_to(ROOT)}\n\n"
    if target.is_dir():
        names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in target.iterdir())
        return title + "".join(f"- `{name}`\n" for name in names if not name.startswith(("_", ".")))
    text = target.read_text(encoding="utf-8")
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{title}{fence}{LANGUAGES.get(target.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def reference_pages() -> Iterator[tuple[str, str]]:
    """Give name and text of the page of each package of the library: its modules, by their docstrings."""
    for path in sorted((ROOT / "wordmill").rglob("__init__.py")):
        modules = [file.stem for file in sorted(path.parent.glob("*.py")) if file.stem != "__init__"]
        name = ".".join(path.parent.relative_to(ROOT).parts)
        if modules:
            yield name, f"# {name}\n\n" + "".join(f"::: {name}.{module}\n\n" for module in modules)


def _is_page(target: Path) -> bool:
    return target == ROOT / "README.md" or (target.parent == ROOT / "docs" and target.suffix == ".md")


def _page_place(name: str) -> Path:
    return Path("index.md" if name == "README" else f"{name}.md")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Write the pages, and what mkdocs is told of them."""
    order = build_pages(STATE / "pages")
    told = {"INHERIT": "../docs/mkdocs.yml", "docs_dir": "pages", "site_dir": "site", "nav": order,
            "not_in_nav": "source/"}  # fmt: skip
    (STATE / "site.yml").write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
