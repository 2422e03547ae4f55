"""Texts of models as HTML: what they look like, and that none of them keeps the server busy."""

import time

import pytest

from glm_jax.data.collection.web.markdown import render


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
    ],
)
def test_markdown(markdown, html):
    assert html in render(markdown)


WIDE = "|a" * 60 + "|\n" + "|-" * 60 + "|\n"


@pytest.mark.parametrize("part", ["> ", "[", "*a ", "- ", "`", "![a](", "|a", "<", "a\n", "a\r"])
@pytest.mark.parametrize("head", ["", WIDE], ids=["text", "table"])
def test_endless_text_is_no_burden(head, part):
    began = time.process_time()
    for length in (7_500, 20_000, 200_000):
        render(head + part * (length // len(part)))
    assert time.process_time() - began < 0.4
    assert render("<" * 30_000) == f"<pre>{'&lt;' * 30_000}</pre>"


def test_a_large_table_is_a_table_and_is_made_once():
    table = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 200
    shown = render(table)
    assert shown.count("<td>") == 600 and render(table) is shown
