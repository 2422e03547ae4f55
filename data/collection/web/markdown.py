"""Markdown of models and of other people, as HTML that cannot do anything."""

import re
from collections.abc import Sequence
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

HIGHEST, DEEPEST = 2, 6  # of headings: h1 is the page's own
LONGEST = 8_000  # characters: a model that did not stop; brackets take quadratic time
CELLS = 5_000  # of a table, whose short rows are filled up: few characters can make many
REMEMBERED = 1_000  # texts, which several people see, and one person again after an undo
TAGS = {
    "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a",
    "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"a": {"href"}, "ol": {"start"}}


def _heading(
    renderer: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: EnvType
) -> str:
    level = min(max(int(tokens[i].tag[1:]) + env["lower"], HIGHEST), DEEPEST)
    return f"<h{level}>" if tokens[i].nesting == 1 else f"</h{level}>\n"


# HTML stays text; pictures would be fetched from elsewhere; line breaks stand as they were written;
# definitions of links would vanish, and an answer is judged by all of it.
_markdown = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["image", "reference"])
)
for _part in ("heading_open", "heading_close"):
    _markdown.add_render_rule(_part, _heading)


def render(text: str, lower: int = 2) -> Markup:
    """HTML without scripts, styles, ids, pictures or forms, whatever stands in the text.

    Its headings are so many levels lower, below those of the page itself. What would keep the
    server busy, more than LONGEST characters or CELLS of a table, is shown as it was written.
    """
    if len(text) > LONGEST or _cells(text) > CELLS:
        return Markup("<pre>{}</pre>").format(text)
    return _rendered(text, lower)


def _cells(text: str) -> int:
    """No table in the text has more."""
    lines = re.split("\r\n?|\n", text)
    return len(lines) * max(line.count("|") for line in lines)


@lru_cache(REMEMBERED)
def _rendered(text: str, lower: int) -> Markup:
    return Markup(
        nh3.clean(
            _markdown.render(text, {"lower": lower}),
            tags=TAGS,
            attributes=ATTRIBUTES,
            url_schemes={"http", "https", "mailto"},
            link_rel="noopener noreferrer nofollow",
            set_tag_attribute_values={"a": {"target": "_blank"}},
        )
    )
