"""What the whole repository keeps to."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("glm_jax", "data", "train", "configs", "tests", "examples", "benchmarks")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
PACKAGES = [file for file in FILES if file.relative_to(ROOT).parts[0] in FOLDERS[:3]]

# train -> data -> glm_jax: what each folder must not import.
FORBIDDEN = {
    "glm_jax": ("glm_jax.data", "glm_jax.train"),
    "data": ("glm_jax.train",),
    "train": (),
}


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported(file: Path) -> set[str]:
    """Every module that a file names in an import, and every name that may be one."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)}:{node.lineno}: imports by a relative name"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("file", PACKAGES, ids=name)
def test_imports_go_one_way(file):
    modules = imported(file)
    for forbidden in FORBIDDEN[file.relative_to(ROOT).parts[0]]:
        assert not {m for m in modules if m == forbidden or m.startswith(forbidden + ".")}
    assert not modules & {"train", "data", "configs"}, "the installed names are glm_jax.train, ..."


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_file_holds_one_idea(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 350
    vague = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "handler"}
    assert not vague & set(re.split(r"[_.]", file.stem))


@pytest.mark.parametrize("file", PACKAGES, ids=name)
def test_packages_name_no_hosts(file):
    """But for sources and for this machine: whatever is fetched is named by the user."""
    known = r"(arxiv\.org|www\.w3\.org|github\.com)/|127\.0\.0\.1:|\{"
    assert not re.findall(rf"https?://(?!{known})\S+", file.read_text(encoding="utf-8"))
