"""People at the pages, in a real browser: by keyboard and mouse, on a desk and on a phone."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.collection.server import Server, samples
from glm_jax.data import records
from glm_jax.data.collection import store
from glm_jax.data.collection.exports import exporting
from glm_jax.data.collection.simulation.client import plain
from tests.data.collection.conftest import DESK, PHONE

SCALE = ("left-2", "left-1", "tie", "right-1", "right-2")
PAIRS = 20
UNDONE, LOST = 7, 12  # which pair is undone, and before which the network goes


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Any]:
    here = tmp_path_factory.mktemp("served")
    records.write(here / "samples.jsonl", samples(100, 3, 0))
    (here / "config.yaml").write_text("overlap: 0\nrepeats: 0\n")
    settings = "--config", str(here / "config.yaml")
    db = str(here / "preferences.db")
    with Server(db, str(here / "samples.jsonl"), *settings) as started:
        started.db = db
        yield started


def entered(server: Any, context: Any, name: str) -> Any:
    """A page of someone who came by a personal link and pressed the button."""
    from glm_jax.data.collection import people

    with store.writing(store.open_store(server.db)) as db:
        secret = people.invite(db, name, "annotator", 0.0)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{server.url}/enter/{secret}")
    page.locator("main button").click()
    page.wait_for_url(f"{server.url}/")  # loaded, with its script
    return page


def shown(page: Any) -> tuple[str, str, str, str]:
    texts = (page.locator(f".{name} > .text").inner_text() for name in ("last", "left", "right"))
    return page.locator("#judge [name=assignment]").input_value(), *map(plain, texts)


def next_after(page: Any, assignment: str) -> None:
    """Waits for the page of another pair."""
    page.wait_for_function(
        "old => (document.querySelector('#judge [name=assignment]') || {value: old}).value !== old",
        arg=assignment,
    )


def by_keyboard(page: Any, choice: int) -> None:
    page.keyboard.press(str(choice + 1))
    page.keyboard.press("Enter")


def by_hand(page: Any, choice: int) -> None:
    press = "tap" if page.evaluate("navigator.maxTouchPoints") else "click"
    getattr(
        page.locator("label", has=page.locator(f"[name=side][value='{SCALE[choice]}']")), press
    )()
    getattr(page.locator("#judge button.send"), press)()


def undo(page: Any, give: Any) -> None:
    if give is by_keyboard:
        page.keyboard.press("b")
    else:
        page.locator("#undo button").click()


@pytest.mark.parametrize("lose", ["network", "server"])
@pytest.mark.parametrize(
    ("screen", "give"), [(DESK, by_keyboard), (DESK, by_hand), (PHONE, by_hand)],
    ids=["desk-keyboard", "desk-mouse", "phone"],
)  # fmt: skip
def test_twenty_pairs(server, browser, screen, give, lose, request):
    """One of them undone, one given while nobody hears: exactly these are in the export."""
    name = request.node.callspec.id
    context = browser.new_context(**screen)
    errors = []
    page = entered(server, context, name)
    page.on("pageerror", lambda error: errors.append(error))
    given = {}
    for i in range(PAIRS):
        assignment, prompt, left, right = shown(page)
        if i == LOST:
            context.set_offline(True) if lose == "network" else server.kill()
            give(page, i % 5)
            page.wait_for_selector("#status.wrong")
            assert shown(page)[0] == assignment
            context.set_offline(False) if lose == "network" else server.start()
        elif i == UNDONE:
            give(page, (i + 2) % 5)
            next_after(page, assignment)
            other = shown(page)[0]
            undo(page, give)
            next_after(page, other)
            assert shown(page) == (assignment, prompt, left, right)
            give(page, i % 5)
        else:
            give(page, i % 5)
        next_after(page, assignment)
        given[prompt, *sorted((left, right))] = (left, right, SCALE[i % 5])
    assert len(given) == PAIRS and not errors
    context.close()

    with store.reading(store.open_store(server.db)) as db:
        rows = [row for row in exporting.rows(db, "raw") if row["annotator"] == name]
    exported = {}
    for row in rows:
        chosen, rejected = plain(row["chosen"]), plain(row["rejected"])
        tie, side = row.get("tie", False), row["side"]
        left, right = (chosen, rejected) if side == "left" else (rejected, chosen)
        scale = "tie" if tie else f"{side}-{row['strength']}"
        key = plain(row["prompt"][-1]["content"]), *sorted((chosen, rejected))
        exported[key] = (left, right, scale)
        assert row["milliseconds"] >= 0
    assert len(rows) == PAIRS and exported == given


def test_a_whole_form_by_keyboard(server, browser):
    """Criteria, flags and a comment, and back out of the comment, without a mouse."""
    page = entered(server, browser.new_context(**DESK), "typist")
    assignment = shown(page)[0]
    for key in ("q", "s", "c", "u", "m"):
        page.keyboard.press(key)
    page.keyboard.type("both say 1 and 2, b")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    next_after(page, assignment)
    page.context.close()
    with store.reading(store.open_store(server.db)) as db:
        (row,) = (row for row in exporting.rows(db, "raw") if row["annotator"] == "typist")
    assert row["side"] == "left" and row["strength"] == 2
    assert row["criteria"] == {
        "helpfulness": "chosen", "harmlessness": "tie", "fluency": "rejected",
    }  # fmt: skip
    assert row["flags"] == ["unclear_intention"] and row["comment"] == "both say 1 and 2, b"


def test_two_tabs_lose_no_answer(server, browser):
    """Both closed before the network is back; the next page of any kind delivers what they kept."""
    context = browser.new_context(**DESK)
    page = entered(server, context, "tabs")
    first = shown(page)[0]
    by_hand(page, 2)
    next_after(page, first)
    other = context.new_page()
    other.set_default_timeout(120_000)
    other.goto(server.url)
    undo(other, by_hand)
    next_after(other, shown(page)[0])
    assert shown(other)[0] == first
    context.set_offline(True)
    for tab, choice in ((page, 0), (other, 3)):
        by_hand(tab, choice)
        tab.wait_for_selector("#status.wrong")
    page.close()
    other.close()
    context.set_offline(False)
    reading = context.new_page()
    reading.goto(f"{server.url}/guidelines")
    reading.wait_for_function("() => Object.keys(localStorage).length === 0")
    assert reading.locator("article.guidelines").count() == 1, "who reads is not interrupted"
    context.close()
    with store.reading(store.open_store(server.db)) as db:
        rows = [row for row in exporting.rows(db, "raw") if row["annotator"] == "tabs"]
    assert sorted((row["side"], row["strength"]) for row in rows) == [("left", 2), ("right", 1)]


def test_an_answer_waits_for_its_annotator(server, browser):
    """Someone else signs in on the device meanwhile: it is neither theirs nor lost."""
    context = browser.new_context(**DESK)
    context.route("**/judge", lambda route: route.abort())  # no request slips through
    page = entered(server, context, "morning")
    by_hand(page, 0)
    page.wait_for_selector("#status.wrong")
    entered(server, context, "evening")
    context.unroute("**/judge")
    page.wait_for_selector(".name:text('evening')")
    page.wait_for_function("() => !document.querySelector('[aria-busy]')")
    again = entered(server, context, "morning")
    again.wait_for_function("() => !Object.keys(localStorage).length")
    context.close()
    with store.reading(store.open_store(server.db)) as db:
        rows = [row for row in exporting.rows(db, "raw") if row["annotator"].endswith("ning")]
    assert [(row["annotator"], row["side"]) for row in rows] == [("morning", "left")]
