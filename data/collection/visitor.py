"""Someone at the pages of a collection without a browser: reads them, fills in and sends forms."""

import asyncio
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from glm_jax.errors import InputError

PATIENCE = 60.0  # seconds that a server may be gone
AGAIN = 0.1  # seconds until it is asked again
BUSY = (429, 502, 503, 504)


@dataclass
class Form:
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    "what stands in it when the page comes"


class Page(HTMLParser):
    """The forms of a page, and the words of each element that is marked with `data-text`."""

    def __init__(self, html: str):
        super().__init__()
        self.forms: list[Form] = []
        self._texts: dict[str, list[str]] = {}
        self._open: list[tuple[str, str | None]] = []  # elements around, with their mark
        self.feed(html)

    def text(self, mark: str) -> str | None:
        """The words of the elements of this mark, with single blanks; None if there is none."""
        found = self._texts.get(mark)
        return None if found is None else plain(" ".join(found))

    def form(self, action: str) -> Form | None:
        """The first form that is sent to this path."""
        return next((form for form in self.forms if urlsplit(form.action).path == action), None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append(Form(given.get("action") or ""))
        elif tag == "input" and self.forms and given.get("type") == "hidden":
            self.forms[-1].fields[given.get("name") or ""] = given.get("value") or ""
        if tag not in ("input", "br", "hr", "img", "meta", "link", "wbr"):  # which have no end
            mark = given.get("data-text")
            self._open.append((tag, mark))
            if mark:
                self._texts.setdefault(mark, [])

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass  # elements whose end may be left out

    def handle_data(self, data: str) -> None:
        for _, mark in self._open:
            if mark:
                self._texts[mark].append(data)


def plain(text: str) -> str:
    """A text without its line breaks and double blanks, which pages do not keep."""
    return " ".join(text.split())


class Visitor:
    """One person's cookies and patience: whoever meets a server that is gone asks again."""

    def __init__(self, patience: float = PATIENCE):
        self.patience = patience
        self._client = httpx.AsyncClient(timeout=30.0)

    async def close(self) -> None:
        await self._client.aclose()

    async def enter(self, link: str) -> None:
        """Follows a personal link and presses the button behind it."""
        page = Page((await self._ask("GET", link)).text)
        form = page.form(urlsplit(link).path)
        if form is None:
            raise InputError(f"{link.rpartition('/')[0]}/...: this personal link is not known")
        await self.send(link, form)

    async def page(self, url: str) -> Page:
        return Page((await self._ask("GET", url)).text)

    async def send(self, url: str, form: Form, **values: Any) -> None:
        """Sends a form of the page at `url`; back only when the server has acknowledged it."""
        answer = await self._ask("POST", urljoin(url, form.action), form.fields | values)
        if answer.status_code != 303:
            raise InputError(f"{form.action}: refused with status {answer.status_code}")

    async def _ask(self, method: str, url: str, data: dict[str, Any] | None = None) -> Any:
        until = time.monotonic() + self.patience
        while True:
            try:
                answer = await self._client.request(method, url, data=data)
            except httpx.TransportError as error:
                problem = str(error) or type(error).__name__
            else:
                if answer.status_code not in BUSY:
                    return answer
                problem = f"status {answer.status_code}"
            if time.monotonic() > until:
                raise InputError(f"{urljoin(url, '/')}: no answer in {self.patience} s: {problem}")
            await asyncio.sleep(AGAIN)
