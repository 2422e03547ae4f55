"""Every key of every configuration is read: none is there that changes nothing."""

import ast
import dataclasses
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"glm_jax": "glm_jax", "data": "glm_jax.data", "train": "glm_jax.train"}
TREES = {
    file: ast.parse(file.read_text(encoding="utf-8"))
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*.py"))
}


def decorated(tree: ast.Module) -> list[str]:
    """Classes under @configuration, which some files import under another name."""
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(d, ast.Name) and d.id.startswith("config") for d in node.decorator_list)
    ]


def configurations() -> dict[str, type]:
    found = {}
    for file, tree in TREES.items():
        for name in decorated(tree):
            folder, *inner = file.relative_to(ROOT).with_suffix("").parts
            module = importlib.import_module(".".join([FOLDERS[folder], *inner]))
            found[name] = getattr(module, name)
    return found


def unread(keys: set[str], trees: list[ast.AST]) -> set[str]:
    """Keys that no code reads as an attribute: `config.key`."""
    nodes = (node for tree in trees for node in ast.walk(tree))
    return keys - {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_a_key_that_is_set_or_named_but_not_read_is_found():
    code = "@configuration\nclass C:\n  a: int\n  b: int\n  c: int\nrun(C(c=1), x.a, 'b').b = 2"
    assert decorated(ast.parse(code)) == ["C"]
    assert unread({"a", "b", "c"}, [ast.parse(code)]) == {"b", "c"}


def test_all_configurations_are_looked_at():
    names = configurations().keys()
    assert {"PipelineConfig", "PPOHyperparameters", "Sampling", "SelectionConfig"} <= names
    assert len(names) >= 12


@pytest.mark.parametrize("config", configurations().values(), ids=lambda config: config.__name__)
def test_every_key_is_read_by_something(config):
    keys = {field.name for field in dataclasses.fields(config)}
    assert keys
    assert not unread(keys, list(TREES.values()))
