"""A report's way from report.json to report.html: read, checked against its schema, drawn.

One style for every report: each has a template of its own that fills `base.html.j2`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from markupsafe import Markup
from pydantic import ValidationError

from glm_jax.data.numbers import (
    count,
    duration,
    number,
    percent,
    points,
    signed,
    span,
)
from glm_jax.errors import InputError
from glm_jax.train.reports.pipeline_schema import Block
from glm_jax.train.run_folder import write_json

Schema = TypeVar("Schema", bound=Block)


def read(folder: str | Path) -> Any:
    """What `report.json` in the folder holds; InputError when it is missing or is not JSON."""
    source = Path(folder) / "report.json"
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{source}: no such file; a run writes it when it is evaluated") from None
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source}:{error.lineno}: not JSON: {error.msg}") from None


def parse(schema: type[Schema], values: Any, where: str = "report.json") -> Schema:
    """The numbers with their types; InputError names the first key that is not as documented."""
    try:
        return schema.model_validate(_printable(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{where}: {key}: {first['msg']} (docs/report.md has the keys)") from None


def render(template: str, **values: Any) -> str:
    """The HTML page: one file, nothing outside it, all text of the report escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters = (percent, points, span, number, signed, duration, count)
    environment.filters |= {f.__name__: f for f in filters} | {"svg": Markup}
    return environment.get_template(template).render(**values)


def put(folder: str | Path, report: Block, text: str) -> Path:
    """Writes the numbers and their page into a folder of theirs; returns the page's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report.model_dump(mode="json"))
    return put_page(folder, text)


def put_page(folder: str | Path, text: str) -> Path:
    """Writes `report.html` in the folder, the whole page or nothing; returns its path."""
    target = Path(folder) / "report.html"
    unfinished = target.with_name(f".report.html.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, target)
    return target


def _printable(value: Any) -> Any:
    """Control characters and lone surrogates replaced: HTML and terminals must not see them."""
    if isinstance(value, str):
        return re.sub(
            "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", value
        )
    if isinstance(value, dict):
        return {_printable(k): _printable(v) for k, v in value.items()}
    return [_printable(v) for v in value] if isinstance(value, list | tuple) else value
