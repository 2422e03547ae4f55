"""A command of the command line: a function of its options, imported when it is called."""

import argparse
import importlib
from argparse import Namespace
from collections.abc import Callable
from typing import Any, TypeAlias

Command: TypeAlias = Callable[[str, Any, str], argparse.ArgumentParser]
"makes the parser of a command from its name, what it runs, and what it is for"


def later(place: str) -> Callable[[Namespace], None]:
    """Calls what stands at `place` in glm_jax.train ("file.function") with the command's own
    arguments, and imports it, which may be heavy, only then."""
    module, _, function = place.rpartition(".")

    def run(arguments: Namespace) -> None:
        getattr(importlib.import_module(f"glm_jax.train.{module}"), function)(**given(arguments))

    return run


def given(arguments: Namespace) -> dict[str, Any]:
    """What the command's own arguments say; a default that is not given lives with its function."""
    return {k: v for k, v in vars(arguments).items() if k not in ("command", "traceback")}
