"""Typed configuration: frozen dataclasses that live beside what they configure; YAML fills them.

@configuration
class PPOConfig:
    kl: float = 0.1
    "coefficient of the KL penalty in the reward"

config = load(PPOConfig, "ppo.yaml", ["kl=0.05"])
"""

import dataclasses
import functools
import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform, get_args, get_type_hints

import pydantic
import yaml

from glm_jax.errors import InputError

T = TypeVar("T")
Keys = tuple[str, ...]


@dataclass_transform(kw_only_default=True, frozen_default=True)
def configuration(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen, keyword-only dataclass whose values are checked when it is made.

    A wrong one is an InputError.
    """
    rules = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    made = pydantic.dataclasses.dataclass(cls, kw_only=True, frozen=True, config=rules)
    check = made.__init__

    @functools.wraps(check)
    def __init__(self: T, **values: Any) -> None:
        try:
            check(self, **values)
        except pydantic.ValidationError as error:
            raise _explained(error, made, values, made.__name__, {}) from error

    made.__init__ = __init__
    return made


def load(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Reads a `cls` from a YAML file, or from a shipped one by its name ("quickstart").

    An override is "key.path=value" with the value in YAML. Raises InputError with file and line.
    """
    file = _find(path)
    values, places = _read(file.read_bytes(), str(path))
    for text in overrides:
        _override(values, places, text)
    return _check(cls, values, str(path), places)


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Makes a `cls` from plain values; `where` names their origin in the InputError."""
    return _check(cls, values, where, {})


def save(config: Any, path: str | Path) -> None:
    """Writes YAML that `load` reads back as an equal configuration."""
    text = yaml.dump(
        to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def required(config: Any, *names: str) -> None:
    """Raises InputError when one of these keys, which a pipeline fills in itself, is empty."""
    for name in names:
        if not getattr(config, name):
            raise InputError(f"the key '{name}' of {type(config).__name__} is missing")


def shipped() -> dict[str, str]:
    """The configurations that come with the package: name, and what its first line says."""
    files = sorted(resources.files("glm_jax.configs").iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        .splitlines()[0]
        .lstrip("# ")
        for file in files
        if file.name.endswith(".yaml")
    }


def _find(path: str | Path) -> Any:
    path = Path(path)
    if path.is_file():
        return path
    name = path.name.removesuffix(".yaml")
    if path.parent in (Path(), Path("configs")) and name in shipped():
        return resources.files("glm_jax.configs") / f"{name}.yaml"
    names = ", ".join(shipped())
    raise InputError(f"{path}: no such configuration file (shipped: {names})")


class _Loader(yaml.SafeLoader):
    """The scalars of YAML 1.2: `1e-4` is a number; `no`, `1:30` and dates are strings."""


class _Dumper(yaml.SafeDumper):
    pass


_SCALARS = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
        )
_Dumper.add_representer(
    tuple,
    lambda dumper, values: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=True
    ),
)


def _read(text: str | bytes, where: str) -> tuple[dict[str, Any], dict[Keys, str]]:
    """The values of a YAML text, and "file:line" of each key in it."""
    places: dict[Keys, str] = {}

    def fail(node: yaml.Node, problem: str) -> InputError:
        return InputError(f"{where}:{node.start_mark.line + 1}: {problem}")

    def value(node: yaml.Node, keys: Keys) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [value(item, (*keys, str(i))) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return loader.construct_object(node)
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise fail(key, "a key must be a word")
            if key.value in found:
                raise fail(key, f"the key {'.'.join((*keys, key.value))!r} is given twice")
            places[*keys, key.value] = f"{where}:{key.start_mark.line + 1}"
            found[key.value] = value(item, (*keys, key.value))
        return found

    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return {}, places
        if not isinstance(root, yaml.MappingNode):
            raise fail(root, "expected keys and values, such as 'seed: 0'")
        return value(root, ()), places
    except RecursionError:
        raise InputError(f"{where}: nested too deeply, or a part of itself") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}{line}: not valid YAML: {problem}") from error


def _override(values: dict[str, Any], places: dict[Keys, str], text: str) -> None:
    where = f"override {text!r}"
    path, equals, given = text.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        raise InputError(f"{where}: expected 'key.path=value'")
    for n, key in enumerate(keys[:-1], start=1):
        places.setdefault(keys[:n], where)
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[keys[-1]] = _read(f"value: {given}", where)[0]["value"]
    places[keys] = where


def _check(cls: type[T], values: Mapping[str, Any], where: str, places: dict[Keys, str]) -> T:
    try:
        # Through JSON: lists become tuples and mappings configurations, yet "5" is no number.
        return pydantic.TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        raise _explained(error, cls, values, where, places) from error


def _explained(
    error: pydantic.ValidationError,
    cls: type,
    values: Mapping[str, Any],
    where: str,
    places: Mapping[Keys, str],
) -> InputError:
    """The most telling of the faults, in one line."""
    # An unknown key comes first: it is often why another is missing.
    first = min(error.errors(), key=lambda e: e["type"] != "unexpected_keyword_argument")
    keys = _locate(first["loc"], values)
    name = ".".join(keys)
    place = next((places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in places), where)
    if first["type"] == "unexpected_keyword_argument":
        problem = f"unknown key {name!r}; did you mean {_nearest(name, cls)!r}?"
    elif first["type"] == "missing":
        problem = f"the key {name!r} is missing"
    elif first["type"] == "value_error":
        problem = f"{name}: " * bool(name) + str(first["ctx"]["error"])
    else:
        expected = first["msg"].removeprefix("Input ")
        problem = f"{name!r} {expected}, got {reprlib.repr(first['input'])}"
    return InputError(f"{place}: {problem}")


def _locate(loc: tuple[str | int, ...], values: Any) -> Keys:
    """The keys to the place of an error, without the names that a union's members add."""
    keys: Keys = ()
    for part in loc:
        if isinstance(values, Mapping) and (part in values or part == loc[-1]):
            keys, values = (*keys, str(part)), values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            keys, values = (*keys, str(part)), values[part]
    return keys


def _nearest(name: str, cls: type) -> str:
    """The valid key that reads most like `name`, by its whole path and by its last word."""

    def likeness(key: str) -> float:
        ends = key.rpartition(".")[2], name.rpartition(".")[2]
        return SequenceMatcher(None, key, name).ratio() + SequenceMatcher(None, *ends).ratio()

    return max(_keys(cls), key=likeness)


def _keys(cls: type) -> list[str]:
    """Every key of a configuration, with its path."""
    keys = []
    for name, hint in get_type_hints(cls).items():
        keys.append(name)
        for part in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(part):
                keys += [f"{name}.{key}" for key in _keys(part)]
    return keys
