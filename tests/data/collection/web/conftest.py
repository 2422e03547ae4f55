"""A collection behind its pages, and people at them with a browser that runs no script.

`enter` is for those with a real one.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Engine, select
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from glm_jax.data.collection import people
from glm_jax.data.collection.loading import load_gold, load_pairs
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import open_store, reading, writing
from glm_jax.data.collection.tables import Judgement, Table
from glm_jax.data.collection.web.app import create_app
from glm_jax.data.records import Pair
from tests.data.collection.conftest import NOW


class Browser(TestClient):
    """Keeps cookies; fills in the forms that the pages show."""

    def form(self, action: str, page: str = "/") -> dict[str, str]:
        """What stands in a form of a page before anyone touches it."""
        html = self.get(page).text
        found = re.search(rf'action="{re.escape(action)}">(.*?)</form>', html, re.DOTALL)
        assert found, f"{page} has no form for {action}"
        return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', found[1]))

    def submit(self, action: str, page: str = "/", headers: Any = None, **fields: Any) -> Any:
        """Sends a form of a page, with these fields filled in."""
        data = self.form(action, page) | fields
        return self.post(action, data=data, headers=headers, follow_redirects=False)


class Collection:
    """An application with people; `now` is what its clock says."""

    def __init__(self, engine: Engine, config: CollectionConfig, **settings: Any) -> None:
        self.engine, self.config, self.now = engine, config, NOW
        self.secrets: dict[str, str] = {}
        self.app: ASGIApp = create_app(engine, config, clock=lambda: self.now, **settings)

    def browser(self, secure: bool = False, like: Browser | None = None) -> Browser:
        """Of nobody yet, or with the cookies of another."""
        scheme = "https" if secure else "http"
        made = Browser(self.app, f"{scheme}://localhost", raise_server_exceptions=False)
        made.cookies.update(like.cookies if like else {})
        return made

    def link(self, name: str, role: str = "annotator") -> str:
        with writing(self.engine) as db:
            return f"/enter/{people.invite(db, name, role, self.now)}"

    def annotator(self, name: str, role: str = "annotator") -> Browser:
        browser, link = self.browser(), self.link(name, role)
        assert browser.submit(link, link).status_code == 303
        return browser

    def judgements(self) -> list[Judgement]:
        with reading(self.engine) as db:
            found = db.scalars(select(Judgement).order_by(Judgement.id)).all()
            db.expunge_all()
            return list(found)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""
        with reading(self.engine) as db:
            tables = Table.metadata.sorted_tables
            return {t.name: [tuple(row) for row in db.execute(t.select())] for t in tables}


def _pair(i: int, **values: Any) -> Pair:
    given = {
        "id": f"pair-{i}",
        "prompt": [{"role": "user", "content": f"Question {i}"}],
        "chosen": f"Good {i}",
        "rejected": f"Bad {i}",
    }
    return Pair(**given | values)


@pytest.fixture
def pair() -> Callable[..., Pair]:
    """The i-th of them."""
    return _pair


@pytest.fixture(scope="module")
def collections(tmp_path_factory) -> Callable[..., Collection]:
    """Makes a collection of pairs; whatever else is given is the configuration's."""

    def make(
        pairs: Any = None, *, folder: Any = None, known: Any = (), app: Any = None, **settings: Any
    ) -> Collection:
        folder = folder or tmp_path_factory.mktemp("collection")
        engine = open_store(str(folder / "preferences.db"))
        config = CollectionConfig(**{"repeats": 0.0, "overlap": 0.0} | settings)
        pairs = [_pair(i) for i in range(5)] if pairs is None else pairs
        with writing(engine) as db:
            load_pairs(db, pairs, config)
            if known:
                load_gold(db, known, config, purpose="practice")
        return Collection(engine, config, **app or {})

    return make


@pytest.fixture
def collection(collections, tmp_path) -> Callable[..., Collection]:
    """The same, made again by one test: it finds what was there."""
    return partial(collections, folder=tmp_path)


@pytest.fixture
def served() -> Iterator[Callable[[Collection], str]]:
    """Lets real browsers reach a collection: its address."""
    running = []

    def serve(there: Collection) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(there.app, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture
def enter(browser: Any, served: Any) -> Iterator[Callable[..., Any]]:
    """A page of someone who came to a collection by a personal link and pressed the button."""
    contexts, addresses = [], {}

    def entered(there: Collection, **screen: Any) -> Any:
        contexts.append(browser.new_context(**screen))
        # Requests can slip through while interception begins: it is on before there is a page.
        contexts[-1].route("**/nothing-is-here", lambda route: route.continue_())
        page = contexts[-1].new_page()
        page.set_default_timeout(90_000)  # a request may hang for 20 s before it is tried again
        if there not in addresses:
            addresses[there] = served(there)
        page.goto(addresses[there] + there.link("Anna"))
        page.locator("main button").click()
        page.wait_for_url(f"{addresses[there]}/")
        return page

    yield entered
    for context in contexts:
        context.close()
