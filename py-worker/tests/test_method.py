"""METHOD.md and the citations of it: every citation leads to a section, every path to a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
METHOD = ROOT / "py-worker" / "atlas_worker" / "METHOD.md"

FOLDERS = ("py-worker", "src", "experiments", "proto", "test")
"""Of the repository, with the files that may cite METHOD.md."""
ENDINGS = (".py", ".ts", ".proto")
SKIPPED = ("node_modules", "dist", "gen", "__pycache__")
"""Folders with generated or foreign files; those whose names begin with a dot are skipped too."""

MENTION = re.compile(r"\bMETHOD\b(?!\.md)")
CITATION = re.compile(r"METHOD (\d+\.\d+)(?![\d.]*\d)")
MORE = re.compile(r"(?:, | and | or | to |–)\d+\.\d+\b")
"""A second number after a citation, which nothing would check."""

HEADING = re.compile(r"^### (\d+\.\d+) \S", re.MULTILINE)
NUMBERS = r"\d+\.\d+(?:(?:, | and | or | to )\d+\.\d+)*"
REFERENCE = re.compile(rf"\(({NUMBERS})\)|\b[Ss]ections? ({NUMBERS})")
"""How METHOD.md refers to its own sections."""
FILE = re.compile(r"`([\w./-]+\.(?:py|ts|proto|md))`")


def sections() -> list[str]:
    """The numbers of METHOD.md's sections, in its order."""
    return HEADING.findall(METHOD.read_text("utf-8"))


def sources() -> Iterator[Path]:
    """The repository's own sources, but for this file, which has citations that are wrong."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            if any(part in SKIPPED or part.startswith(".") for part in parts):
                continue
            if path.suffix in ENDINGS and path != Path(__file__).resolve():
                yield path


def faults(text: str, known: list[str]) -> list[tuple[int, str]]:
    """The lines of a source whose mentions of METHOD are no citations of ``known`` sections."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for mention in MENTION.finditer(line):
            citation = CITATION.match(line, mention.start())
            if citation is None:
                found.append((number, "not of the form METHOD 2.3"))
            elif citation[1] not in known:
                found.append((number, f"there is no section {citation[1]}"))
            elif MORE.match(line, citation.end()):
                found.append((number, "several sections: write METHOD before each"))
    return found


def test_every_citation_leads_to_a_section() -> None:
    known, wrong, cited = sections(), [], 0
    for path in sources():
        text = path.read_text("utf-8")
        cited += len(MENTION.findall(text))
        where = path.relative_to(ROOT)
        wrong += [f"{where}:{line}: {fault}" for line, fault in faults(text, known)]
    assert not wrong, "\n" + "\n".join(wrong)
    assert cited > 20, "the walk has found hardly any citation"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("(METHOD 2.3)", None),
        ("Of METHOD 2.3.", None),
        ("METHOD 2.3: METHOD 2.4", None),
        ("see METHOD.md", None),
        ("METHODS = METHOD_NAME", None),
        ("METHOD 2.9", "no section"),
        ("METHOD 2.31", "no section"),
        ("METHOD 2", "form"),
        ("METHOD 2.3.1", "form"),
        ("METHOD section 2.3", "form"),
        ("METHOD's numbers", "form"),
        ("METHOD  2.3", "form"),
        ("schedule of METHOD", "form"),
        ("METHOD 2.3, 2.4", "several"),
        ("METHOD 2.3 or 2.4", "several"),
    ],
)
def test_a_citation_is_of_one_form(line: str, fault: str | None) -> None:
    found = faults(f"first line\n{line}\n", ["2.3", "2.4"])
    if fault is None:
        assert found == []
    else:
        assert [number for number, _ in found] == [2]
        assert fault in found[0][1]


def test_sections_are_numbered_in_order() -> None:
    known = sections()
    numbers = [tuple(map(int, section.split("."))) for section in known]
    assert numbers == sorted(set(numbers))
    for chapter, section in numbers:
        assert section == 1 or (chapter, section - 1) in numbers


def test_references_within_the_page_lead_to_sections() -> None:
    page = " ".join(METHOD.read_text("utf-8").split())
    named = {n for found in REFERENCE.finditer(page) for n in re.findall(r"\d+\.\d+", found[0])}
    assert named
    assert named <= set(sections())


def test_every_file_named_exists() -> None:
    """Paths start at the repository for its folders, else at the folder of METHOD.md."""
    named = FILE.findall(METHOD.read_text("utf-8"))
    assert named
    missing = []
    for name in named:
        base = ROOT if name.split("/")[0] in FOLDERS else METHOD.parent
        if not (base / name).is_file():
            missing.append(name)
    assert missing == []
