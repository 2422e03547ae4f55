"""Answers and undos on their way to the server, whatever lies in between."""

import threading
from typing import Any

import pytest
from sqlalchemy import select

from glm_jax.data.collection import people
from glm_jax.data.collection.store import reading, writing
from glm_jax.data.collection.tables import Person, Retraction
from glm_jax.data.collection.web import pages

HTML = {"content_type": "text/html", "body": "<html><main id=main>Hotel: sign in</main></html>"}
JSON = {"content_type": "application/json"}
NO_STORAGE = """for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, name, {get() { throw new DOMException("no", "SecurityError"); }});
"""


def assignment(page: Any) -> str:
    return page.locator("#judge [name=assignment]").input_value()


def give(page: Any, *keys: str) -> None:
    for key in (*keys, "Enter"):
        page.keyboard.press(key)


def next_after(page: Any, before: str) -> None:
    """Another pair's page, with nothing under way."""
    page.wait_for_function(
        """old => {
            const found = document.querySelector("#judge [name=assignment]");
            return found && found.value !== old && !document.querySelector("[aria-busy]");
        }""",
        arg=before,
    )


def kept(page: Any) -> list[str]:
    return [key.partition("-")[0] for key in page.evaluate("Object.keys(localStorage)")]


def wrong(page: Any) -> str:
    return page.wait_for_selector("#status.wrong:not(:empty)").inner_text()


def said(name: str, language: str = "en") -> str:
    return pages.texts(language)["script"][name]


def retractions(there: Any) -> int:
    with reading(there.engine) as db:
        return len(db.scalars(select(Retraction)).all())


@pytest.mark.parametrize(
    "foreign",
    [
        {"status": 200, **HTML},
        {"status": 403, **HTML},
        {"status": 404, **HTML},
        {"status": 502, **HTML},
        {"status": 200, **JSON, "body": "{}"},
        {"status": 200, **JSON, "body": "null"},
        {"status": 401, **JSON, "body": '{"error": {"code": 1}}'},
    ],
    ids=lambda foreign: f"{foreign['status']}-{foreign['body'][:6]}",
)
def test_only_our_server_acknowledges(collection, enter, foreign):
    there = collection()
    page = enter(there)
    before = assignment(page)
    page.route("**/judge", lambda route: route.fulfill(**foreign))
    give(page, "1")
    assert wrong(page) == f"{said('offline')} {said('kept')}"
    assert kept(page) == ["answer"] and assignment(page) == before
    page.unroute("**/judge")
    next_after(page, before)
    assert len(there.judgements()) == 1 and not kept(page)


def test_a_page_of_someone_else_is_not_shown(collection, enter):
    there = collection()
    page = enter(there)
    before = assignment(page)
    page.route("**/", lambda route: route.fulfill(status=200, **HTML))
    give(page, "1")
    assert wrong(page) == said("offline"), "nothing is kept by now"
    assert assignment(page) == before and len(there.judgements()) == 1
    page.unroute("**/")
    next_after(page, before)
    assert page.locator("#status").inner_text() == said("saved")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("status", "name"), [(429, "busy"), (503, "busy"), (500, "broken")])
def test_trouble_is_called_what_it_is(collection, enter, status, name, language):
    there = collection(language=language)
    page = enter(there)
    before = assignment(page)
    page.route("**/judge", lambda route: route.fulfill(status=status, body="trouble"))
    give(page, "1")
    assert wrong(page) == f"{said(name, language)} {said('kept', language)}"
    page.unroute("**/judge")
    next_after(page, before)
    assert len(there.judgements()) == 1


def test_a_mistake_of_the_server_holds_nobody_up(collection, enter):
    """The answer stays here, goes again with the next page, and may be given otherwise."""
    there = collection()
    page = enter(there)
    before, asked = assignment(page), []

    def breaks(route: Any) -> None:
        asked.append(route.request.post_data)
        route.fulfill(status=500, **JSON, body='{"error": "The server made a mistake."}')

    page.route("**/judge", breaks)
    give(page, "1")
    page.wait_for_selector(f"#status.wrong:text-is('{said('not_taken')}')")
    assert len(asked) == 3 and kept(page) == ["answer"] and assignment(page) == before
    assert page.locator("[aria-busy]").count() == 0
    assert page.locator("[value=left-2]").is_checked(), "what was said is still there"
    page.reload()
    page.wait_for_selector(f"#status.wrong:text-is('{said('not_taken')}')")
    assert len(asked) == 6
    page.unroute("**/judge")
    give(page, "3")
    next_after(page, before)
    assert [each.verdict for each in there.judgements()] == ["tie"] and not kept(page)


def test_an_undo_whose_reply_was_lost(collection, enter):
    there = collection()
    page = enter(there)
    shown = []
    for _ in range(2):
        shown.append(assignment(page))
        give(page, "1")
        next_after(page, shown[-1])
    lost = []

    def loses(route: Any) -> None:
        lost.append(route.fetch().status)
        route.abort()

    page.route("**/undo", loses)
    last = assignment(page)
    page.keyboard.press("b")
    assert wrong(page) == said("offline") and retractions(there) == 1
    page.unroute("**/undo")
    next_after(page, last)
    assert lost == [200] and retractions(there) == 1 and assignment(page) == shown[1]
    assert page.locator("#status").inner_text() == ""
    page.keyboard.press("b")
    next_after(page, shown[1])
    assert retractions(there) == 2 and assignment(page) == shown[0]


def test_a_browser_that_keeps_nothing(collection, enter):
    there = collection()
    page = enter(there)
    page.add_init_script(NO_STORAGE)
    page.reload()
    before = assignment(page)
    page.context.set_offline(True)
    give(page, "2")
    assert said("offline") in wrong(page)
    page.context.set_offline(False)
    next_after(page, before)
    page.keyboard.press("b")
    page.wait_for_function("old => document.querySelector('[name=attempt]').value !== old", arg="1")
    page.wait_for_selector("[value=left-1]:checked")
    assert assignment(page) == before and len(there.judgements()) == 1


def test_an_answer_refused_to_who_was_paused(collection, enter):
    """It is not sent again by itself; it is filled in when its pair is back, in any tab."""
    there = collection()
    page = enter(there)
    page.keyboard.press("m")
    page.keyboard.type("a long thought")
    page.keyboard.press("Escape")
    with writing(there.engine) as db:
        people.pause(db, db.scalars(select(Person)).one(), None, there.now)
    give(page, "1")
    page.wait_for_selector("main h1:text-is('You are paused')")
    assert "no pairs at present" in wrong(page) and kept(page) == ["refused"]
    with writing(there.engine) as db:
        people.resume(db, db.scalars(select(Person)).one(), None, there.now)
    other = page.context.new_page()
    page.close()
    other.goto(page.url)
    other.wait_for_function("() => document.querySelector('#comment').value === 'a long thought'")
    assert other.locator("[value=left-2]").is_checked() and not there.judgements()
    before = assignment(other)
    give(other)
    next_after(other, before)
    assert there.judgements()[0].comment == "a long thought" and not kept(other)


def test_a_page_that_waits_for_pairs(collection, enter, pair):
    """It stays, with what has the focus, until there is a pair, or the last one is undone."""
    gate = threading.Event()
    more = [[pair(7)], []]

    def sampler() -> list[Any]:
        gate.wait(60)
        return more.pop(0)

    there = collection([pair(0)], app={"sampler": sampler})
    page = enter(there)
    asked = []
    page.on("request", lambda request: asked.append((request.url, request.is_navigation_request())))
    give(page, "1")
    page.wait_for_selector("[data-again='3']")
    page.locator("#undo button").focus()
    with page.expect_response(lambda answer: answer.url == page.url):
        pass
    page.wait_for_timeout(200)
    assert page.evaluate("document.activeElement.closest('#undo') !== null")
    page.keyboard.press("b")
    page.wait_for_selector("#judge:has([name=attempt][value='2'])")
    give(page, "5")
    page.wait_for_selector("[data-again]")
    gate.set()
    page.wait_for_selector("#judge")
    assert "Question 7" in page.locator("main").inner_text()
    assert not any(navigates for _, navigates in asked), "no page was loaded anew"
    assert [each.attempt for each in there.judgements()] == [1, 2]


def test_two_answers_wait_for_their_annotator(collection, enter):
    """The page turns to someone else's at the first of them: neither is sent in that name."""
    there = collection()
    page = enter(there)
    first = assignment(page)
    give(page, "3")
    next_after(page, first)
    second = assignment(page)
    other = page.context.new_page()
    other.goto(page.url)
    other.keyboard.press("b")
    next_after(other, second)
    assert assignment(other) == first
    for tab, key in ((page, "1"), (other, "5")):
        tab.route("**/judge", lambda route: route.abort())
        give(tab, key)
        wrong(tab)
    page.close()
    page.context.clear_cookies()  # as when the session has ended
    ben = other.context.new_page()
    ben.goto(other.url.rstrip("/") + there.link("Ben"))
    ben.locator("main button").click()
    ben.wait_for_selector(".name:text('Ben')")
    sent = []
    other.on("response", lambda reply: sent.append((reply.request.method, reply.status)))
    other.unroute("**/judge")
    other.wait_for_selector(".name:text('Ben')")
    other.wait_for_selector("main:not([aria-busy])")
    assert [status for method, status in sent if method == "POST"] == [403]
    assert kept(other) == ["answer", "answer"] and len(there.judgements()) == 1
    other.goto(ben.url.rstrip("/") + there.link("Anna"))
    other.locator("main button").click()
    other.wait_for_function("() => !Object.keys(localStorage).length")
    assert {each.assignment_id for each in there.judgements()[1:]} == {first, second}
