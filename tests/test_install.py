"""The packages as installed: found from any folder, whatever lies beside the script."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"glm_jax": "glm_jax", "train": "glm_jax/train", "data": "glm_jax/data"}
FOLDERS["configs"] = "glm_jax/configs"
SOURCES = (".py", ".yaml", ".css", ".j2", ".js", ".md")

# A name that every experiment uses, in a folder that holds what every experiment has.
SCRIPT = """
import site, sys
site.addsitedir(sys.argv[1])
import data
import glm_jax.data.records, glm_jax.data.proving_ground.utility
from glm_jax.configuration import shipped
from glm_jax.train import cli
assert list(data.__path__) == [sys.argv[2]], data.__path__
print(cli.__file__)
print(glm_jax.data.records.__file__)
print(*shipped())
"""


def sources(root: Path) -> set[str]:
    """Where each source file of a checkout should be installed."""
    return {
        f"{target}/{file.relative_to(root / folder)}"
        for folder, target in FOLDERS.items()
        for file in (root / folder).rglob("*")
        if file.suffix in SOURCES
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository: a build leaves files in its folder."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    for name in (*FOLDERS, "tests"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    return checkout


def install(checkout: Path, target: Path, kind: str) -> list[str]:
    """Builds a wheel of that kind and unpacks it, which is what pip does; returns its files."""
    build = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(target)
        return files.namelist()


@pytest.mark.parametrize("kind", ["editable", "wheel"])
def test_a_script_called_train_beside_a_folder_called_data(checkout, tmp_path, kind):
    experiment, site = tmp_path / "experiment", tmp_path / "site"
    (experiment / "data").mkdir(parents=True)
    (experiment / "train.py").write_text(SCRIPT)
    site.mkdir()
    files = install(checkout, site, kind)
    if kind == "wheel":
        installed = {name for name in files if ".dist-info/" not in name}
        assert installed == sources(checkout)

    # -S leaves out the installation that these tests themselves run in.
    paths = [str(site), *{sysconfig.get_path(name) for name in ("purelib", "platlib")}]
    run = subprocess.run(
        [sys.executable, "-S", experiment / "train.py", site, experiment / "data"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    cli, records, shipped = run.stdout.splitlines()
    home = checkout if kind == "editable" else site / "glm_jax"
    assert Path(cli) == home / "train" / "cli.py"
    assert Path(records) == home / "data" / "records.py"
    assert shipped.split() == [
        file.name.removesuffix(".yaml")
        for file in sorted((checkout / "configs").glob("*.yaml"), key=lambda file: file.name)
    ]


def test_constraints_hold_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or ("==" in line and "/" not in line and "@" not in line), line
