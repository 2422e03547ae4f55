"""A client of the pages of a collection: reads them as a browser does, fills in and sends forms."""

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
ENDLESS = ("br", "hr", "img", "input", "link", "meta", "wbr")  # elements that hold nothing


@dataclass
class Form:
    action: str
    hidden: dict[str, str] = field(default_factory=dict)
    "what stands in it when the page comes"
    required: set[str] = field(default_factory=set)
    "names of the criteria that must be judged"


class Page(HTMLParser):
    """The forms of a page, and the words of its texts, each an element with `data-text`."""

    def __init__(self, html: str):
        super().__init__()
        self.forms: list[Form] = []
        self.again: float | None = None
        "seconds after which the page asks to be loaded again"
        self._words: dict[str, list[str]] = {}
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def text(self, name: str) -> str:
        """The words of a text, with single blanks; InputError if the page has none of that name."""
        if name not in self._words:
            raise InputError(f"a page without the text {name!r}: not one of this version's")
        return plain(" ".join(self._words[name]))

    def form(self, action: str) -> Form | None:
        """The first form that is sent to this address."""
        return next((form for form in self.forms if form.action == action), None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "data-again" in given:
            self.again = float(given["data-again"])
        if tag == "form":
            self.forms.append(Form(given.get("action", "")))
        elif tag == "input" and self.forms:
            if given.get("type") == "hidden":
                self.forms[-1].hidden[given["name"]] = given.get("value", "")
            elif any("data-required" in around for _, around in self._open):
                self.forms[-1].required.add(given["name"])
        if tag not in ENDLESS:
            self._open.append((tag, given))
        if "data-text" in given:
            self._words[given["data-text"]] = []

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass  # elements whose end may be left out

    def handle_data(self, data: str) -> None:
        for _, given in self._open:
            if "data-text" in given:
                self._words[given["data-text"]].append(data)


def plain(text: str) -> str:
    """A text without its line breaks and double blanks, which pages do not keep."""
    return " ".join(text.split())


class Client:
    """One person's cookies and patience: whoever meets a server that is gone asks again."""

    def __init__(self, patience: float = PATIENCE):
        self._patience = patience
        self._client = httpx.AsyncClient(timeout=30.0)

    async def close(self) -> None:
        await self._client.aclose()

    async def enter(self, link: str) -> None:
        """Follows a personal link and presses the button behind it."""
        form = (await self.page(link)).form(urlsplit(link).path)
        if form is None:
            raise InputError(f"{urljoin(link, '.')}...: no page of a personal link")
        await self.send(link, form)

    async def page(self, url: str) -> Page:
        return Page((await self._ask("GET", url)).text)

    async def send(self, url: str, form: Form, **values: Any) -> None:
        """Sends a form of the page at `url`; back only when the server has acknowledged it."""
        answer = await self._ask("POST", urljoin(url, form.action), form.hidden | values)
        if answer.is_error:
            path = answer.url.path.split("/")[1]  # what follows may be a secret
            raise InputError(f"/{path} answers {answer.status_code}: {answer.json()['error']}")

    async def _ask(
        self, method: str, url: str, data: dict[str, Any] | None = None
    ) -> httpx.Response:
        headers = {"Accept": "application/json"} if method == "POST" else {}  # as our script does
        until = time.monotonic() + self._patience
        while True:
            rest = AGAIN
            try:
                answer = await self._client.request(method, url, data=data, headers=headers)
                if answer.status_code not in BUSY:
                    return answer
                problem = f"status {answer.status_code}"
                rest = float(answer.headers.get("Retry-After", AGAIN))
            except httpx.TransportError as error:
                problem = str(error) or type(error).__name__
            if time.monotonic() > until:
                raise InputError(f"{urljoin(url, '/')}: gone for {self._patience} s: {problem}")
            await asyncio.sleep(rest)
