"""The report page and the closing table, from invented numbers of the real shape."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from report_example import example
from rich.console import Console

from glm_jax.errors import InputError
from glm_jax.train.reports import pipeline_report
from glm_jax.train.reports.data_schema import DataReport, Described
from glm_jax.train.reports.pipeline_schema import Report
from glm_jax.train.reports.reward_schema import RewardReport

VOID = {"meta", "link"}  # elements without an end tag
HOSTILE = "</pre></p><script>alert(1)</script>&amp;\"'\x00\ud800\x1b[2J"


class Page(HTMLParser):
    """Keeps the text and the attributes of a page, and refuses one whose tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def written(folder: Path, values: Any) -> str:
    (folder / "report.json").write_text(json.dumps(values), encoding="utf-8")
    return pipeline_report.write(folder).read_text(encoding="utf-8")


def test_page_is_whole_well_formed_and_needs_nothing_else(tmp_path):
    text = written(tmp_path, example())
    page = Page(text)
    assert "://" not in text and "script" not in page.tags
    for name, value in page.attributes:
        if name in ("href", "src", "action", "data"):
            assert value.startswith("#") or value == "data:,"
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    links = [v[1:] for name, v in page.attributes if name == "href" and v.startswith("#")]
    assert set(links) | set(re.findall(r"url\(#(\w+)\)", text)) <= set(ids)
    assert (
        page.tags.count("svg")
        == page.tags.count("figure")
        == len(re.findall("<svg[^>]*><title>", text))
    )
    assert page.tags.count("table") == page.tags.count("caption")
    assert len(text) < 1_500_000
    assert list(p.name for p in tmp_path.iterdir() if p.suffix != ".json") == ["report.html"]


def test_same_numbers_give_the_same_page(tmp_path):
    assert written(tmp_path, example()) == written(tmp_path, example())


def test_numbers_reach_page_and_terminal(tmp_path):
    values = example()
    row = values["wins"]["ppo_vs_sft"]["greedy"]["all"]
    row |= {"win": 0.4321, "tie": 0.5, "lose": 0.0679, "net": 0.3642, "low": 0.3, "high": 0.4284}
    text = Page(written(tmp_path, values)).text
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(pipeline_report.table(values, tmp_path))
    terminal = console.export_text()
    assert "43.2 / 50.0 / 6.8" in text
    for shown in ("+36.4", "+30.0 to +42.8", "does not"):
        assert shown in text and shown in terminal
    assert str(tmp_path / "report.html") in terminal.replace("\n", "")


def hostile(value: Any) -> Any:
    """Every text replaced, keys too where they are free."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, dict):
        return {k: hostile(v) for k, v in value.items()}
    return [hostile(v) for v in value] if isinstance(value, list) else value


def test_hostile_text_is_shown_not_run(tmp_path):
    values = hostile(example())
    values["utility"]["sft"]["greedy"][HOSTILE] = 0.5
    values["wins"]["ppo_vs_sft"]["greedy"][HOSTILE] = values["wins"]["ppo_vs_sft"]["greedy"]["all"]
    values["reward"]["balanced_by_truth"]["by_category"]["$x_{" + HOSTILE] = {"accuracy": 1, "n": 1}
    values["filler_probe"]["$\\frac{" + HOSTILE] = {"change": 0.1, "n": 3}
    values["timing"][HOSTILE] = 3.0
    text = written(tmp_path, values)
    page = Page(text)
    assert "script" not in page.tags and "<script>alert(1)</script>" in page.text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
    Console(file=io.StringIO()).print(pipeline_report.table(values))


def test_absent_blocks_leave_no_trace(tmp_path):
    whole = example()
    for keys in ([], *([key] for key in whole), [k for k in whole if k != "samples"]):
        values = {k: whole[k] for k in keys}
        page = Page(written(tmp_path, values))
        headings = page.tags.count("h2")
        assert headings == page.tags.count("a") <= (2 if len(keys) < 2 else 10)
        pipeline_report.table(values)
    assert "None" not in Page(written(tmp_path, {})).text


def test_null_numbers_are_dashes(tmp_path):
    values = example()
    values["ppo"]["train"][3]["objective/kl"] = None
    values["reward"]["balanced_by_truth"] |= {"length_correlation": None, "ci95": [None, None]}
    values["wins"]["ppo_vs_sft"]["greedy"]["all"] |= {"low": None, "high": None}
    assert "None" not in (text := Page(written(tmp_path, values)).text) and "nan" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "report.json: no such file"),
        ('{"seed": 1,\n "claims": [}', "report.json:2: not JSON"),
        ("[]", "report.json: the whole: "),
        ('{"claims": [{"claim": "x", "holds": "perhaps"}]}', "report.json: claims.0.holds: "),
        ('{"winz": {}}', "report.json: winz: "),
        ('{"wins": {"ppo_vs_sft": {"warm": {}}}}', "report.json: wins.ppo_vs_sft.warm"),
    ],
)
def test_bad_file_is_one_clear_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        pipeline_report.write(tmp_path)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("*.html"))


def keys(kind: Any, path: str = "") -> set[str]:
    """Paths of all leaves of the schema, as docs/report.md writes them."""
    if kind is Described:  # whose keys stand in the part on preference data
        return {path.removeprefix(".")}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        return set().union(*(keys(fields[f].annotation, f"{path}.{f}") for f in fields))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return keys(arguments[0], path)
    if origin is dict and get_origin(arguments[0]) is Annotated:
        return keys(arguments[1], f"{path}.<{arguments[0].__metadata__[0]}>")
    if origin is list and keys(arguments[0]) != {""}:
        return keys(arguments[0], f"{path}[]")
    blocks = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)]
    return keys(blocks[0], path) if blocks else {path.removeprefix(".")}


@pytest.mark.parametrize(
    ("schema", "part"),
    [(Report, 0), (DataReport, 1), (RewardReport, 2)],
)
def test_every_key_is_documented_and_every_documented_key_exists(schema, part):
    text = (Path(__file__).parents[2] / "docs/report.md").read_text(encoding="utf-8")
    parts = re.split(r"^## The report o.*$", text, flags=re.M)
    documented = re.findall(r"^\| `([^`]+)` \|", parts[part], flags=re.M)
    assert len(set(documented)) == len(documented)
    assert set(documented) == keys(schema)
