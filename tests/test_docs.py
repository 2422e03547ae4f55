"""The documentation names what exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CHECKLIST = (TESTS.parent / "docs/checklist.md").read_text(encoding="utf-8")
LINES = {"A": 10, "B": 6, "C": 10, "D": 11, "E": 9, "F": 7, "G": 3}
ROWS = re.findall(r"^\| (?!---|what|\|)(.+) \|$", CHECKLIST, re.MULTILINE)


@cache
def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(\S+\.py::\w+)`", CHECKLIST))))
def test_every_test_of_the_checklist_exists(named):
    file, name = named.split("::")
    assert (TESTS / file).is_file() and name in functions(TESTS / file)


def test_every_line_of_the_checklist_has_a_test_or_a_decision():
    rows = [row.split(" | ") for row in ROWS]
    expected = [f"{letter}{i + 1}" for letter, n in LINES.items() for i in range(n)]
    assert [row[0] for row in rows if len(row) == 3] == expected
    assert sum(len(row) == 2 for row in rows) == 10
    for row in rows:
        shown = " | ".join(row[1:])
        assert "::test_" in shown or "Decision: " in shown, row[0]
