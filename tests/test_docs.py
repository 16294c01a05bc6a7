"""What the pages say of this tree is so: links, verbs, modules, paths and keys that they name are there."""

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from wordmill.recipe.sections import Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "wordmill").rglob("*.md"))]
FOLDERS = ["benchmarks", "components", "docs", "examples", "images", "manifests", "pipelines", "requirements", "tests",
           "tools", "wordmill"]  # fmt: skip
NO_FILES = {"wordmill/serve", "wordmill/model", "images/s"}  # an image, an annotation, a speed
FOREIGN = {"pytest"}
FORBIDDEN = re.compile(r"\b(issues?|sessions?|helpers?|reviewers?|TODO|FIXME|recognition)\b|/work/|/tmp/\w")


def code(page: Path) -> str:
    """Return what stands in code: indented and fenced lines, and what is between backticks, one line each."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return "\n".join([*fenced, *re.findall(r"^ {4}.*$", text, re.MULTILINE), *spans])


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_linked(page: Path, link: str) -> bool:
    place, _, anchor = link.partition("#")
    target = (page.parent / place).resolve() if place else page
    return target.exists() and (not anchor or anchor in anchors(target))


@cache
def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


@cache
def names_of_modules() -> frozenset[str]:
    return frozenset(path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name in FOREIGN or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def is_path(path: str) -> bool:
    pattern = re.sub(r"<\w+>", "*", path.rstrip("./"))
    return path in NO_FILES or any(True for _ in ROOT.glob(pattern))


def is_key(name: str) -> bool:
    section, key = name.split(".")
    sections = {field.name: field.type for field in dataclasses.fields(Recipe)}
    return key in {field.name for field in dataclasses.fields(sections[section])}


# What is named in code -> how it looks, and whether it is there.
NAMED: dict[str, tuple[str, Callable[[str], bool]]] = {
    "a verb": (r"\bmake ([a-z][a-z-]*)", lambda verb: f"\n{verb}: " in makefile()),
    "a variable of a verb": (r"\bmake [a-z-]+ (?:.* )?([A-Z_]+)=", lambda name: f"$({name})" in makefile()),
    "a program": (r"\bpython -m ([\w.]+)", is_module),
    "a module": (r"\bfrom ((?:wordmill|components|pipelines)[\w.]*) import", is_module),
    "a path": (rf"(?:(?<![\w/.-])|file://)((?:{'|'.join(FOLDERS)})/[\w./*<>-]*)", is_path),
    "a file of Python": (r"(?<![\w/*.-])(\w+\.py)\b", lambda name: name in names_of_modules()),
    "a key of a recipe": (r"(?<![\w/.-])((?:data|train|evaluation|gate|export)\.[a-z]\w*)(?!\w*[/.])", is_key),
}


@pytest.mark.parametrize("what", NAMED)
def test_what_pages_name_is_there(what: str) -> None:
    pattern, is_there = NAMED[what]
    named = {(page.name, name) for page in PAGES for name in re.findall(pattern, code(page))}
    assert named
    assert sorted((page, name) for page, name in named if not is_there(name)) == []


def test_links_and_their_anchors_lead_somewhere() -> None:
    links = {(page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))}
    inside = {(page, link) for page, link in links if "://" not in link}
    assert sorted((page.name, link) for page, link in inside if not is_linked(page, link)) == []
    reached = {(page.parent / link.partition("#")[0]).resolve() for page, link in inside if page == PAGES[0]}
    assert [page.name for page in PAGES if page.parent.name == "docs" and page not in reached] == []


def test_what_is_said_to_be_in_a_file_is_there() -> None:
    """`NAME` in `wordmill/x/y.py`, or in a link to it; several names of one file too."""
    said = re.compile(r"((?:`\w+`(?:,| and|;)? )+)(?:in|of) (?:\[[\w./]+\]\(|`)(\w+/[\w/]+\.py)[`)]")
    found = [
        (name, file)
        for page in PAGES
        for names, file in said.findall(" ".join(page.read_text(encoding="utf-8").split()))
        for name in re.findall(r"\w+", names.replace(" and ", " "))
    ]
    assert len(found) > 10
    sources = {file: (ROOT / file).read_text(encoding="utf-8") for _, file in found if (ROOT / file).is_file()}
    assert [(name, file) for name, file in found
            if not re.search(rf"^ *(def |class )?{name}\b", sources.get(file, ""), re.MULTILINE)] == []  # fmt: skip


def test_the_guide_leads_to_where_deviations_from_what_is_published_stand() -> None:
    guide = " ".join((ROOT / "docs" / "guide.md").read_text(encoding="utf-8").split())
    found = re.search(r"departs from the published code, .*? above `(\w+)` in `([\w/.]+)`", guide)
    assert found is not None
    above, told, _ = (ROOT / found[2]).read_text(encoding="utf-8").partition(f"\ndef {found[1]}(")
    assert told
    assert above.rstrip().rpartition("\n\n")[2].startswith("# Deliberate deviations from the published code")


def test_the_first_page_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150


def test_pages_speak_of_the_project_alone() -> None:
    lines = [(page.name, line) for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    assert [(page, line) for page, line in lines if FORBIDDEN.search(line)] == []


PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)
MEANINGS = ("not affected", "not reachable: ", "mended by ")


def test_the_advisories_page_has_every_pin_and_says_what_it_means() -> None:
    pins = {f"{name} {version}" for path in (ROOT / "requirements").glob("*.txt") if path.name != "constraints.txt"
            for name, version in PIN.findall(path.read_text(encoding="utf-8"))}  # fmt: skip
    lines = (ROOT / "docs" / "advisories.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert sorted(row[0] for row in rows) == sorted(pins)
    assert [row for row in rows if len(row) != 3 or not row[1] or not row[2].startswith(MEANINGS)] == []
    assert [row for row in rows if row[1] == "none known" and row[2] != "not affected"] == []
