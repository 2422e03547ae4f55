"""Texts of models as HTML: what they look like, and that none of them keeps the server busy."""

import re
import time

import pytest

from glm_jax.data.collection.web.markdown import LONGEST, render, render_alike


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("# One", "<h3>One</h3>"),
        ("a\nb", "a<br>\nb"),
        ("`<b>`", "<code>&lt;b&gt;</code>"),
        ("```html\n<i>\n```", "<pre><code>&lt;i&gt;\n</code></pre>"),
        ('<a href="x" onclick="y">', "&lt;a href="),
        ("[x](data:text/html,y)", "[x](data:text/html,y)"),
        ("[x](http://a.b)", 'rel="noopener noreferrer nofollow"'),
        ("&lt;script&gt;", "&lt;script&gt;"),
        ("|a|\n|-|\n|b|", "<td>b</td>"),
        ("x\n\n[1]: http://a.b 'Title'", "<p>[1]: http://a.b 'Title'</p>"),
        ("[](http://a.b)", ">http://a.b</a>"),
        ("[&nbsp;](mailto:a@b)", "mailto:a@b</a>"),
        ("![](http://a.b)", "!<a href"),
        ("x []() y", ">[]()</a> y"),
        ("[x](http://a.b 'Title')", '>x</a> "Title"'),
        ("[<http://a.b>](http://c.d)", ">&lt;http://a.b&gt;</a>"),
        ("[x](/admin) vector<std::string>", "[x](/admin) vector&lt;std::string&gt;"),
        ("x [y](http://[)", "<pre>x [y](http://[)</pre>"),
        ("#\n\n## ##", "<h3>#</h3>\n<h4>##</h4>"),
        ("> |a|b|\n> |-|-|\n> ||1|2\\|3|4|", "<td>1 | 2|3 | 4</td>"),
        ("```python\nx\n```", "<pre><code>x"),
        ("```python x\n```", "<p>```python x</p>\n<pre><code></code></pre>"),
        (">", "<pre>&gt;</pre>"),
    ],
)
def test_markdown(markdown, html):
    assert html in render(markdown)


@pytest.mark.parametrize(
    "written",
    ["[{}]()", "[](http://{})", "![{}](http://a.b)", "![](http://{})", "[a](http://a.b '{}')",
     "[{}][a]", "[a][{}]", "[a]: {}", "[a](b:{})", "[a]({})", "<{}>", "<b:{}>", "<!-- {} -->",
     "<details>{}</details>", "# [](http://{})", "|a|\n|-|\n|b|{}|", "|[](http://{})|\n|-|",
     "~~~ a {}", "```{{.a #{}}}\n```", "> " * 30 + "{}", "- " * 30 + "{}", "- " * 30 + "a\n\n{}",
     "> " * 30 + "a\n{}", "1. " * 9 + "> {}", "*[" * 30 + "{}", "a\n{}\n=", "&{};", "\\{}"],
)  # fmt: skip
@pytest.mark.parametrize(("first", "more"), [("", ""), ("> ", "> "), ("- ", "  ")])
def test_whoever_judges_an_answer_sees_all_of_it(written, first, more):
    written = written.format("hidden").replace("\n", f"\n{more}")
    shown = render(f"a\n\n{first}{written}\n\nb")
    assert "hidden" in shown.striptags()
    assert not re.search(r"<a [^>]*>\s*</a>|<h\d>\s*</h", shown), "nothing that has no name"


@pytest.mark.parametrize("nothing", ["", " \n", "\u200b", "\xa0"])
def test_nothing_is_nothing(nothing):
    """The page says so in its own words."""
    assert not render(nothing)


@pytest.mark.parametrize("other", ["*b* " * LONGEST, "x [y](http://[)"], ids=["long", "unseen"])
def test_answers_that_are_compared_look_alike(other):
    """Or the longer one would be the one that is hard to read."""
    assert render("# a").startswith("<h3>")
    assert render_alike("# a", other) == [f"<pre>{text}</pre>" for text in ("# a", other)]
    assert render_alike("", "# a") == ["", "<h3>a</h3>\n"]


WIDE = "|a" * 60 + "|\n" + "|-" * 60 + "|\n"


@pytest.mark.parametrize(
    "part",
    [
        "> ",
        "[",
        "*a ",
        "- ",
        "`",
        "![a](",
        "|a",
        "<",
        "a\n",
        "a\r",
        "[](http://a)",
        "<a:b>",
        "[a](b '",
        "~~~a b\n",
        "-\n ",
    ],
)
@pytest.mark.parametrize("head", ["", WIDE], ids=["text", "table"])
def test_endless_text_is_no_burden(head, part):
    began = time.process_time()
    for length in (7_500, 20_000, 200_000):
        render(head + part * (length // len(part)))
    assert time.process_time() - began < 1, "unbounded, some take minutes"
    assert render("<" * 30_000) == f"<pre>{'&lt;' * 30_000}</pre>"


def test_a_large_table_is_a_table_and_is_made_once():
    table = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 200
    shown = render(table)
    assert shown.count("<td>") == 600 and render(table) is shown
