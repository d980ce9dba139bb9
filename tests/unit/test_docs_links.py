"""Every relative link of the project's own pages leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

_ROOT = Path(__file__).parents[2]

_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


def pages() -> list[Path]:
    """The pages that a reader begins with, and all of the manual."""
    manual = sorted((_ROOT / "docs").rglob("*.md"))
    return [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", _ROOT / "CHANGELOG.md", *manual]


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The relative links of *page*: which file each is to, and which anchor in it."""
    text = _CODE.sub("", _FENCED.sub("", page.read_text("utf-8")))
    for target in _LINK.findall(text):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield (page.parent / name).resolve() if name else page, anchor


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class LinkTests(SynchronousTestCase):
    """README, CONTRIBUTING, CHANGELOG and docs/."""

    def test_every_relative_link_leads_to_a_file_that_exists(self) -> None:
        """Also across folders."""
        missing = [
            f"{page.relative_to(_ROOT)}: {file}"
            for page in pages()
            for file, _ in links(page)
            if not file.exists()
        ]
        self.assertEqual(missing, [])

    def test_every_anchor_is_a_heading_of_the_page_that_it_is_in(self) -> None:
        """A heading that was renamed breaks the links to it."""
        missing = [
            f"{page.relative_to(_ROOT)}: {file.name}#{anchor}"
            for page in pages()
            for file, anchor in links(page)
            if anchor and file.exists() and anchor not in anchors(file)
        ]
        self.assertEqual(missing, [])

    def test_every_page_of_the_manual_can_be_reached_from_its_index(self) -> None:
        """A page that nothing leads to is not read."""
        index = _ROOT / "docs" / "index.md"
        reached, to_read = {index}, [index]
        while to_read:
            new = {file for file, _ in links(to_read.pop()) if file.suffix == ".md"} - reached
            reached |= new
            to_read += [file for file in new if file.exists()]
        self.assertEqual(set((_ROOT / "docs").rglob("*.md")) - reached, set())

    def test_there_are_links_at_all(self) -> None:
        """The tests above would pass on pages without any."""
        self.assertGreater(sum(1 for page in pages() for _ in links(page)), 20)
