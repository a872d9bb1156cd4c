"""Links between the pages lead somewhere: to a file that is there, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_PAGES = [*_ROOT.glob("*.md"), *sorted((_ROOT / "docs").rglob("*.md")), _ROOT / "benchmarks" / "README.md"]
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(_prose(page)) if not link.startswith(("http://", "https://"))]
    assert [link for link in links if not _leads_somewhere(page, link)] == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = _ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(_prose(index))}
    assert {page for page in (_ROOT / "docs").rglob("*.md") if page != index} <= linked


def _prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not anchor or anchor in {_anchor(heading) for heading in _HEADING.findall(_prose(target))}


def _anchor(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown (as on GitHub)."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
