"""A run is a folder: its configuration, metrics, checkpoints and results.

Starting the same run again resumes it; starting another one in the same folder is refused.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from glm_jax import configuration
from glm_jax.configuration import to_dict
from glm_jax.errors import InputError
from glm_jax.processes import decided, leads

State = TypeVar("State")


def begun(folder: str | Path, config: Any, may_differ: Sequence[str] = ()) -> bool:
    """Whether the folder holds a run of this configuration already.

    Raises InputError when it belongs to another one, naming what differs, or is no run's. The keys
    of `may_differ`, given by their paths, do not count.
    """
    return decided(partial(_begun, Path(folder), config, may_differ))


def _begun(folder: Path, config: Any, may_differ: Sequence[str]) -> bool:
    file = folder / "config.yaml"
    if file.exists():
        differences = _differences(_saved(file, config), to_dict(config))
        told = [text for key, text in sorted(differences.items()) if key not in may_differ]
        if told:
            raise InputError(
                f"{folder} belongs to another configuration: {'; '.join(told[:5])}. "
                f"Choose another folder, or delete this one"
            )
        return True
    others = (file for file in folder.glob("*") if not file.name.startswith("."))
    if folder.exists() and (not folder.is_dir() or any(others)):
        raise InputError(f"{folder} is not empty and holds no config.yaml: not a run's folder")
    return False


def claim(folder: str | Path, config: Any, may_differ: Sequence[str] = ()) -> Path:
    """Makes the folder of a run, its resolved configuration in it, once its input has been read.

    A run that goes on with other values for keys of `may_differ` keeps the new ones.
    """
    folder = Path(folder)
    file = folder / "config.yaml"

    def write() -> None:
        if not _begun(folder, config, may_differ) or _saved(file, config) != to_dict(config):
            folder.mkdir(parents=True, exist_ok=True)
            configuration.save(config, file)

    decided(write)
    return folder


def _saved(file: Path, config: Any) -> dict[str, Any]:
    return to_dict(configuration.load(type(config), file))


def _differences(saved: Mapping, given: Mapping, prefix: str = "") -> dict[str, str]:
    """What differs, in words, by the paths of the keys."""
    found = {}
    for key in saved.keys() | given.keys():
        a, b, path = saved.get(key), given.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= _differences(a, b, f"{path}.")
        elif a != b:
            found[path] = f"{path} is {a!r} there and {b!r} here"
    return found


def write_json(file: Path, value: Any) -> None:
    """Writes the whole file or nothing, in the first process."""
    if not leads():
        return
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


class Checkpoints:
    """The newest training state of a run, by the number of steps done."""

    def __init__(self, folder: Path):
        # saved before the next step runs: that step is given the state's memory to write over
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._folder = folder.absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def latest(self) -> int:
        return self._manager.latest_step() or 0

    def restore(self, state: State) -> tuple[int, State]:
        """(steps done, state): the saved one, or 0 and the given one when none is saved."""
        step = self.latest()
        if not step:
            return 0, state
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _named(state))
        try:
            saved = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError):  # orbax tells both trees, over hundreds of lines
            raise InputError(
                f"{self._folder}: the checkpoint holds another state than this version's: start "
                f"the run in another folder, or go on with the version that it began with"
            ) from None
        leaves = [saved[name] for name in _named(state)]
        return step, jax.tree.unflatten(jax.tree.structure(state), leaves)

    def save(self, step: int, state: Any) -> None:
        self._manager.save(step, args=ocp.args.StandardSave(_named(state)))

    def delete(self) -> None:
        """A finished run needs no checkpoint: its results are its state."""
        self._manager.close()
        decided(partial(shutil.rmtree, self._folder, ignore_errors=True))


def _named(state: Any) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


class JsonLines:
    """A file of one JSON object a line, cut back on opening to the steps before `step`; written in
    the first process."""

    def __init__(self, file: Path, step: int):
        if not leads():
            self._file = open(os.devnull, "w")  # noqa: SIM115
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_rows(file) if row["step"] < step] if step else []
        temporary = file.with_name(f".{file.name}.tmp")
        temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
        os.replace(temporary, file)
        self._file = open(file, "a", encoding="utf-8")  # noqa: SIM115  (closed by `close`)

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The complete lines of a file; a last line that a kill cut short is left out."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
