"""The pages that mkdocs gets: what they link to is among them."""

import re
from pathlib import Path

import pytest
import yaml

from tools import build_site

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site") / "pages"


@pytest.fixture(scope="module")
def order(folder: Path) -> list[dict[str, object]]:
    return build_site.build_pages(folder)


@pytest.mark.usefixtures("order")
def test_every_link_leads_to_a_page(folder: Path) -> None:
    pages = [folder / "index.md", *(folder / path.name for path in (ROOT / "docs").glob("*.md"))]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))]
    inside = [(page, link.partition("#")[0]) for page, link in links if "://" not in link]
    assert len(inside) > 100
    assert [(page.name, link) for page, link in inside if link and not (page.parent / link).is_file()] == []
    assert {link for page, link in inside if page.name == "index.md"} >= {
        "guide.md", "source/pipelines/training.py.md", "source/pipelines/recipes/index.md"
    }  # fmt: skip


def test_a_reader_finds_every_page_and_package(folder: Path, order: list[dict[str, object]]) -> None:
    (*pages, reference) = order
    assert pages == [{"Start": "index.md"}, *({name: f"{name.lower()}.md"} for name in (
        "Guide", "Operations", "Results", "Development", "Advisories"))]  # fmt: skip
    assert {f"{path.stem}.md" for path in (ROOT / "docs").glob("*.md")} < {str(*page.values()) for page in pages}
    packages = [next(iter(entry)) for entry in reference["Reference"]]  # type: ignore[attr-defined]
    assert {"wordmill.inference.packaged", "wordmill.models.pt", "wordmill.recipe"} <= set(packages)
    text = (folder / "reference" / "wordmill.recipe.md").read_text("utf-8")
    modules = {path.stem for path in (ROOT / "wordmill" / "recipe").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"^::: wordmill\.recipe\.(\w+)$", text, re.MULTILINE)) == modules


def test_a_file_of_the_tree_is_shown_whatever_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_site, "ROOT", tmp_path)
    (tmp_path / "notes.md").write_text("```\ncode\n```\n", encoding="utf-8")
    (tmp_path / "_hidden").mkdir()
    assert build_site.source_page(tmp_path / "notes.md") == "# notes.md\n\n````text\n```\ncode\n```\n````\n"
    assert build_site.source_page(tmp_path) == "# .\n\n- `notes.md`\n"


def test_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[gone](../gone.md)", encoding="utf-8")
    with pytest.raises(ValueError, match=r"page.md: link \.\./gone\.md: there is no"):
        build_site.with_links(page)


def test_mkdocs_is_told_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_site, "STATE", tmp_path / "state")
    build_site.main()
    told = yaml.safe_load((tmp_path / "state" / "site.yml").read_text("utf-8"))
    assert (told["docs_dir"], told["site_dir"], told["INHERIT"]) == ("pages", "site", "../docs/mkdocs.yml")
    assert (tmp_path / "state" / "pages" / "index.md").is_file()
    settings = yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text("utf-8"))
    assert settings["theme"]["font"] is False  # nothing comes from elsewhere
    assert "offline" in settings["plugins"]
