"""The documentation names what exists."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml

from glm_jax.configuration import to_dict
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.train import cli

TESTS = Path(__file__).parent
CHECKLIST = (TESTS.parent / "docs/checklist.md").read_text(encoding="utf-8")
LINES = {"A": 10, "B": 6, "C": 10, "D": 11, "E": 9, "F": 7, "G": 3}
COLLECTING = (TESTS.parent / "docs/collecting.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("line", re.findall(r"^glm-rlhf .+$", COLLECTING, re.MULTILINE))
def test_commands_for_collecting_are_understood(line):
    cli._parsed(shlex.split(line.partition(" | ")[0])[1:])


def test_the_settings_of_a_collection_are_those_of_the_code():
    (block,) = re.findall(r"```yaml\n(title: .*?)```", COLLECTING, re.DOTALL)
    assert yaml.safe_load(block) == to_dict(CollectionConfig())
