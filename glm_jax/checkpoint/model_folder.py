"""A model's folder, written anew or replaced as a whole."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_jax.errors import InputError

TOKENIZER = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|chat_template\..*|vocab\.json|merges\.txt"
)
_MODEL = re.compile(
    r"(generation_)?config\.json|(model|pytorch_model).*\.(safetensors|bin|index\.json)|.*\.py"
    r"|README\.md|LICENSE.*|\.gitattributes|USE_POLICY\.md"
)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a folder to write to, which takes the place of `path` when nothing went wrong.

    A model that was there is replaced; its tokenizer's files stay unless new ones were written.
    Raises InputError, before anything is written, when `path` is remote, or is or holds other
    things than a model.
    """
    if "://" in os.fspath(path):
        raise InputError(f"{path}: models are saved to local folders only")
    path = Path(os.path.abspath(os.path.realpath(path)))
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; a model is saved to a folder")
    _check(path)
    new, old = (path.with_name(f".{path.name}.{name}") for name in ("new", "old"))
    for left in (new, old):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if path.exists():
            if not any(TOKENIZER.fullmatch(file.name) for file in new.iterdir()):
                for file in path.iterdir():
                    if TOKENIZER.fullmatch(file.name):
                        shutil.copy2(file, new)
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check(path: Path) -> None:
    for file in path.iterdir() if path.exists() else []:
        name = file.name
        if not file.is_file() or not (_MODEL.fullmatch(name) or TOKENIZER.fullmatch(name)):
            raise InputError(
                f"{path}: holds other things than a model ({name}); name another folder"
            )
