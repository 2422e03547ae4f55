"""Markdown of models and of other people, as HTML that cannot do anything."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import escapedSplit, getLine, table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, autolink
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

HIGHEST, DEEPEST = 2, 6  # of headings: h1 is the page's own
LONGEST = 8_000  # characters: a model that did not stop; brackets take quadratic time
CELLS = 5_000  # of a table, whose short rows are filled up: few characters can make many
NESTING = 20  # blocks and spans within each other: the parser leaves out what is deeper
ADDRESS = re.compile("https?://|mailto:", re.IGNORECASE)  # of a link; others stay text
LANGUAGE = re.compile(r"[\w+#.-]{0,20}")  # beside a fence: nothing but this is left out
REMEMBERED = 1_000  # texts, which several people see, and one person again after an undo
TAGS = {
    "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a",
    "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"a": {"href"}, "ol": {"start"}}


def render(text: str, lower: int = 2) -> Markup:
    """HTML without scripts, styles, ids, pictures or forms, whatever stands in the text.

    Headings are `lower` levels lower, below those of the page itself. What would keep the server
    busy, more than LONGEST characters or CELLS of a table, is shown as it was written. So is what
    would not be seen: an answer is judged by all of it.
    """
    return render_alike(text, lower=lower)[0]


def render_alike(*texts: str, lower: int = 2) -> list[Markup]:
    """Texts that are compared: if one of them is shown as it was written, all are."""
    seen = [text for text in texts if _can_be_seen(text)]
    too_much = any(len(text) > LONGEST or _cells(text) > CELLS for text in seen)
    made = {text: None if too_much else _rendered(text, lower) for text in seen}
    if None in made.values():
        made = {text: Markup("<pre>{}</pre>").format(text) for text in seen}
    return [made.get(text) or Markup("") for text in texts]


def _cells(text: str) -> int:
    """No table in the text has more."""
    lines = re.split("\r\n?|\n", text)
    return len(lines) * max(line.count("|") for line in lines)


@lru_cache(REMEMBERED)
def _rendered(text: str, lower: int) -> Markup | None:
    """None if something of it would not be seen."""
    made = _markdown.render(text, {"lower": lower})
    clean = nh3.clean(
        made,
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    # addresses that no browser would understand are gone
    is_whole = made.count("<a href=") == clean.count("<a href=")
    return Markup(clean) if is_whole and _can_be_seen(Markup(clean).striptags()) else None


def _can_be_seen(text: str) -> bool:
    """Whether there is more in it than spaces and control characters."""
    return any(unicodedata.category(character)[0] not in "ZC" for character in text)


def _spelt_out(state: StateCore) -> None:
    """Adds to paragraphs and headings what their HTML would not show."""
    for before, token in pairwise(state.tokens):
        if token.type == "inline":
            token.children = list(_with_addresses(token.children or []))
            seen = "".join(part.content for part in token.children)
            if before.type == "heading_open" and not _can_be_seen(seen):
                token.children.append(_text(before.markup))


def _with_addresses(parts: Iterable[Token]) -> Iterator[Token]:
    """Titles after their links, and addresses in links that nobody would see."""
    link, seen = None, ""
    for part in parts:
        if part.type == "link_open":
            link, seen = part, ""
        seen += part.content
        if link is not None and part.type == "link_close":
            if not _can_be_seen(seen):
                yield _text(str(link.attrs["href"]) or "[]()")
            yield part
            if title := link.attrs.pop("title", ""):
                yield _text(f' "{title}"')
        else:
            yield part


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _whole_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A table whose last column also has what its head has no columns for, and would be lost."""
    known = len(state.tokens)
    if not table(state, start, end, silent):
        return False
    new = state.tokens[known:]
    columns = sum(token.type == "th_open" for token in new)
    for cell, _, after in zip(new, new[1:], new[2:], strict=False):
        if after.type == "tr_close" and cell.map:
            cells = escapedSplit(getLine(state, cell.map[0]).strip())
            first = cells[0] == ""  # before the bar that begins the line
            more = [more.strip() for more in cells[first + columns :]]
            cell.content = " | ".join(filter(None, [cell.content, *more]))
    return True


def _deepest(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A paragraph of all that would be nested too deeply."""
    if state.level < NESTING - 2:  # a list takes two levels
        return False
    state.push("paragraph_open", "p", 1)
    token = state.push("inline", "", 0)
    token.content = state.getLines(start, end, state.blkIndent, False).strip()
    token.children = []
    state.push("paragraph_close", "p", -1)
    state.line = end
    return True


def _autolink(state: StateInline, silent: bool) -> bool:
    """None within another link: HTML would end that one before anything was seen of it."""
    return not state.linkLevel and autolink(state, silent)


def _heading(
    renderer: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: EnvType
) -> str:
    level = min(max(int(tokens[i].tag[1:]) + env["lower"], HIGHEST), DEEPEST)
    return f"<h{level}>" if tokens[i].nesting == 1 else f"</h{level}>\n"


def _fence(
    renderer: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: EnvType
) -> str:
    """Code, below what stands beside its fence if that is more than a language."""
    info = tokens[i].info.strip()
    above = "" if LANGUAGE.fullmatch(info) else f"<p>{escape(tokens[i].markup + info)}</p>\n"
    return above + RendererHTML.fence(renderer, tokens, i, options, env)


# HTML stays text; pictures would be fetched from elsewhere; line breaks stand as they were written;
# definitions of links would vanish.
_markdown = (
    MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": NESTING})
    .enable(["table", "strikethrough"])
    .disable(["image", "reference"])
)
_markdown.validateLink = lambda url: ADDRESS.match(url) is not None
_markdown.core.ruler.push("spelt_out", _spelt_out)
_markdown.block.ruler.at("table", _whole_table, {"alt": ["paragraph", "reference"]})
_markdown.block.ruler.before("table", "deepest", _deepest)
_markdown.inline.ruler.at("autolink", _autolink)
for _part in ("heading_open", "heading_close"):
    _markdown.add_render_rule(_part, _heading)
_markdown.add_render_rule("fence", _fence)
