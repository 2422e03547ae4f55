"""Honest people with old forms, and impatient ones: what the pages tell them."""

import asyncio

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from glm_jax.data.collection import Refused, people
from glm_jax.data.collection.store import writing
from glm_jax.data.collection.tables import Person
from glm_jax.data.collection.web.envelope import HEADERS
from glm_jax.data.collection.web.rates import RATES

JSON = {"Accept": "application/json"}


def test_the_script_is_told_in_json(collection):
    anna = collection().annotator("Anna")
    form = anna.form("/judge") | {"side": "both"}
    assert "better" in anna.post("/judge", data=form, headers=JSON).json()["error"]
    anna.cookies.clear()
    answer = anna.post("/judge", data=form, headers=JSON)
    assert (answer.status_code, answer.json()) == (401, {"error": "Please sign in."})


def test_a_stale_form_after_undo(collection):
    there = collection()
    anna = there.annotator("Anna")
    old = anna.form("/judge") | {"side": "left-2"}
    anna.post("/judge", data=old)
    anna.submit("/undo")
    before = there.everything()
    answer = anna.post("/judge", data=old | {"side": "right-1"})
    assert answer.status_code == 409 and "old" in answer.text
    assert there.everything() == before


def test_a_form_of_a_session_that_is_over(collection):
    there = collection()
    anna = there.annotator("Anna")
    old = anna.form("/judge") | {"side": "tie"}
    anna.submit("/logout")
    link = there.link("Anna")
    anna.submit(link, link)
    answer = anna.post("/judge", data=old)
    assert answer.status_code == 403 and "out of date" in answer.text
    assert not there.judgements()


def test_a_lease_that_was_over(collection, pair):
    """The pair went to Ben meanwhile."""
    there = collection([pair(0)], lease_minutes=1.0)
    anna, ben = there.annotator("Anna"), there.annotator("Ben")
    form = anna.form("/judge") | {"side": "tie"}
    assert "Nothing is left" in ben.get("/").text
    there.now += 61
    ben.submit("/judge", side="left-1")
    answer = anna.post("/judge", data=form)
    assert answer.status_code == 409 and "someone else" in answer.text
    assert len(there.judgements()) == 1


@pytest.mark.parametrize(("kind", "path"), [("password", "/login"), ("entering", "/enter/guess")])
def test_guessing_is_slowed_down(collection, kind, path, monkeypatch):
    def refuse(*_, **__):
        raise Refused("quickly")

    monkeypatch.setattr(people, "verified", refuse)
    monkeypatch.setitem(RATES, kind, "5/day")  # a minute may end in the middle of a test
    there = collection()
    browser = there.browser()
    form = browser.form(path, path) | {"name": "lead", "password": "guess"}
    told = [browser.post(path, data=form).status_code for _ in range(8)]
    assert told == [403] * 5 + [429] * 3
    answer = browser.post(path, data=form, headers=JSON)
    assert answer.headers["retry-after"] and "wait" in answer.json()["error"]


def test_the_password_of_one_name_is_not_guessed_from_many_addresses(collection, monkeypatch):
    monkeypatch.setitem(RATES, "password", "1000/minute")
    monkeypatch.setitem(RATES, "name", "3/day")
    browser = collection().browser()
    form = browser.form("/login", "/login") | {"password": "guess"}
    names = ["lead", " lead", "lead", "lead", "nobody"]
    told = [browser.post("/login", data=form | {"name": name}).status_code for name in names]
    assert told == [403, 403, 403, 429, 403]


def test_nobody_waits_while_a_password_is_verified(collection, monkeypatch):
    """It takes tens of milliseconds of the processor, on purpose."""
    there, held = collection(), []
    turn = there.engine.get_execution_options()["writer"]
    monkeypatch.setattr(PasswordHasher, "verify", lambda *_: held.append(turn.locked()))
    there.link("lead", "administrator")
    with writing(there.engine) as db:
        people.set_password(db, db.scalars(select(Person)).one(), "a long enough password")
    answer = there.browser().submit("/login", "/login", name="lead", password="whatever it is")
    assert answer.status_code == 303 and held == [False]


def test_one_person_cannot_occupy_the_server(collection, monkeypatch):
    monkeypatch.setitem(RATES, "asking", "20/minute")
    there = collection()
    anna, ben = there.annotator("Anna"), there.annotator("Ben")
    told = [anna.get("/guidelines").status_code for _ in range(30)]
    assert told == [200] * 20 + [429] * 10
    assert ben.get("/guidelines").status_code == 200


def test_an_annotator_sees_no_trace_of_others(collection):
    there = collection()
    anna, ben = there.annotator("Anna"), there.annotator("Ben")
    for _ in range(2):
        ben.submit("/judge", side="left-2", comment="unmistakable")
    for path in ("/", "/guidelines", "/login"):
        shown = anna.get(path).text
        assert "Ben" not in shown and "unmistakable" not in shown


def test_a_mistake_of_the_server_tells_nothing(collection, monkeypatch):
    there = collection()
    anna = there.annotator("Anna")
    form = anna.form("/judge") | {"side": "tie"}
    monkeypatch.setattr("glm_jax.data.collection.labelling.judging.judge", lambda *_: 1 / 0)
    answer = anna.post("/judge", data=form)
    assert answer.status_code == 500 and "division" not in answer.text
    assert "written to its log" in answer.text
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert answer.headers["cache-control"] == "no-store"
    assert not there.judgements()
    with writing(there.engine):
        pass  # and holds no lock


@pytest.mark.parametrize("path", ["/login", "/enter/guess", "/judge"])
def test_who_goes_away_within_a_form_leaves_no_trace(collection, path):
    """What an application raises, the server writes to its log with all that led to it."""
    there, sent = collection(), []
    cookies = there.annotator("Anna").cookies
    messages = [
        {"type": "http.request", "body": b"name=a", "more_body": True},
        {"type": "http.disconnect"},
    ]
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "content-length": "500",
        "cookie": f"session={cookies['session']}",
    }
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "root_path": "", "query_string": b"", "server": ("localhost", 80), "client": ("::1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    before = there.everything()
    asyncio.run(there.app(scope, receive, send))
    assert sent[0]["status"] == 400 and not messages and there.everything() == before
