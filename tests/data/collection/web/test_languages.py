"""Both languages of the pages: who reads which, and that each says everything."""

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

from glm_jax.data import collection as package
from glm_jax.data.collection.settings import CRITERIA
from glm_jax.data.collection.web import pages


@pytest.mark.parametrize("secure", [False, True])
def test_the_language_stays(collection, secure):
    there = collection(language="zh", app={"secure": secure})
    browser = there.browser(secure)
    assert '<html lang="zh">' in browser.get("/login").text
    browser.submit("/language", "/login", language="en")
    assert '<html lang="en">' in browser.get("/login").text
    link = there.link("Anna")
    browser.submit(link, link)
    browser.submit("/language", language="zh")
    browser.submit("/logout")
    there.now += 1
    link = there.link("Anna")
    browser.submit(link, link)
    assert '<html lang="zh">' in browser.get("/").text
    assert "有用性" in browser.get("/guidelines").text


def shape(texts):
    if isinstance(texts, dict):
        return {key: shape(value) for key, value in texts.items()}
    if isinstance(texts, list):
        return len(texts)
    return sorted(re.findall(r"\{\w+\}", texts))


@pytest.mark.parametrize("of", ["", "admin."])
def test_both_languages_say_the_same_things(of):
    english, chinese = ({**pages.texts(of + code), "refused": {}} for code in pages.LANGUAGES)
    assert shape(english) == shape(chinese)


def names(message):
    return {name for _, name, _, _ in Formatter().parse(message) if name is not None}


def test_refusals_are_known_in_chinese():
    known = pages.texts("zh")["refused"]
    said = {}
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
                (message,) = node.args
                assert isinstance(message, ast.Constant), f"{file.name}:{node.lineno}: no constant"
                said[message.value] = {value.arg for value in node.keywords}
    assert set(said) == set(known)
    for message, values in said.items():
        assert names(message) == values and names(known[message]) <= values, message


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"side": ["tie", "tie"]}, "字段“side”出现了 2 次。"),
        ({"attempt": "x"}, "字段“attempt”不是整数。"),
        ({"fluency": "{0}"}, "没有这个评价项或选项：“fluency={0}”。"),
        ({"flags": "{x.__class__}"}, "没有这个标记：“{x.__class__}”；可用的有 "),
        ({"comment": "x" * 4001}, "备注不能超过 4000 个字符。"),
        ({"side": ""}, "请选择哪个回答更好、同样好或无法判断。"),
        ({"fluency": ""}, "有用性、无害性、流畅性三项都必须评价。"),
    ],
)
def test_refusals_are_said_in_chinese(collection, fields, told):
    anna = collection(language="zh", criteria="required").annotator("Anna")
    form = anna.form("/judge") | dict.fromkeys(("side", *CRITERIA), "tie") | fields
    answer = anna.post("/judge", data=form, headers={"Accept": "application/json"})
    assert answer.status_code == 409 and answer.json()["error"].startswith(told)
