"""Every page of an annotator and an administrator, as axe sees it."""

import threading
from typing import Any

import pytest
from sqlalchemy import select

from glm_jax.data.collection import people
from glm_jax.data.collection.store import writing
from glm_jax.data.collection.tables import Person
from tests.data.collection.conftest import DESK, PHONE

PASSWORD = "a long enough password"


def faults(page: Any) -> list[str]:
    """Serious findings of axe, and whether the page is wider than the screen."""
    from axe_playwright_python.sync_playwright import Axe

    where = f"{page.url} {page.title()}"
    fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return [
        f"{where}: {each['id']}: {each['nodes'][0]['html']}"
        for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ] + ([] if fits else [f"{where}: too wide"])


def answered(page: Any, key: str, then: str) -> None:
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"main h1:text-is('{then}')")


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def screen(request):
    return request.param


@pytest.fixture(params=["light", "dark"])
def look(screen, request):
    return screen | {"color_scheme": request.param}


def test_pages_around_a_pair(collection, enter, pair, look):
    there = collection([pair(0)], criteria="required")
    page = enter(there, **look)
    found = faults(page)
    for key in ("?", "g"):
        page.keyboard.press(key)
        page.wait_for_selector("dialog[open]")
        found += faults(page)
        page.keyboard.press("Escape")
    home = page.url
    for path in ("guidelines", "nowhere", "enter/nobody"):
        page.goto(home + path)
        found += faults(page)
    page.goto(home)
    page.locator("button[name=language]").click()
    page.wait_for_selector("html[lang=zh]")
    found += faults(page)
    assert not found


def test_pages_without_a_pair(collections, enter, pair, look):
    gate = threading.Event()
    waits = collections([], app={"sampler": lambda: list(gate.wait(60) * "")})
    page = enter(waits, **look)
    page.wait_for_selector("[data-again]")
    found = faults(page)
    gate.set()

    there = collections([pair(0)])
    page = enter(there, **look)
    answered(page, "1", "Nothing is left to do")
    found += faults(page)
    with writing(there.engine) as db:
        people.pause(db, db.scalars(select(Person)).one(), None, there.now)
    page.reload()
    assert page.locator("h1").inner_text() == "You are paused"
    found += faults(page)

    page = enter(collections(known=[pair(9)], pass_mark=1.0), **look)
    answered(page, "3", "The practice round was not passed")
    found += faults(page)
    assert not found


def test_pages_of_who_signs_in(collection, enter, pair, look):
    """The administrator's page with everything that it can show."""
    there = collection([pair(i) for i in range(24)], overlap=1.0, annotators=2)
    for name, side in (("Ana", "left-2"), ("Bo", "right-1")):
        annotator = there.annotator(name)
        for _ in range(24):
            annotator.submit("/judge", side=side, milliseconds="2000")
    there.link("lead", "administrator")
    with writing(there.engine) as db:
        lead = db.scalars(select(Person).where(Person.name == "lead")).one()
        people.set_password(db, lead, PASSWORD)
    page = enter(there, **look)
    page.context.clear_cookies()
    page.goto(f"{page.url}login")
    found = faults(page)
    for password, there in (("wrong", "**/login"), (PASSWORD, "**/admin")):
        page.locator("#name").fill("lead")
        page.locator("#password").fill(password)
        page.locator("main button.send").click()
        page.wait_for_url(there)
        found += faults(page)
    assert page.locator("svg").count() >= 5 and page.locator(".odd").count() >= 2
    for language in ("zh", "en"):
        page.locator("button[name=language]").click()
        page.wait_for_selector(f"html[lang={language}]")
        page.evaluate(
            "document.querySelectorAll('details').forEach((each) => { each.open = true })"
        )
        found += faults(page)
    page.locator(".managed [name=reason]").first.fill("at random")
    page.locator(".managed form[action$=invalidate] button").first.click()
    page.wait_for_selector(".people li.invalid")
    page.locator(".invite [name=name]").fill("Cy")
    page.locator(".invite button").click()
    page.wait_for_selector(".invited")
    found += faults(page)
    assert not found
