"""What is typed and chosen: nothing loses it, and no key changes it unasked."""

from typing import Any

import pytest

from glm_jax.data.collection.loading import publish
from glm_jax.data.collection.store import writing
from glm_jax.data.collection.web import pages


def write(page: Any, comment: str) -> None:
    page.keyboard.press("m")
    page.keyboard.type(comment)
    page.keyboard.press("Escape")


def chosen(page: Any) -> str:
    return page.evaluate("document.querySelector('[name=side]:checked')?.value")


def test_arrows_after_a_shortcut_only_scroll(collection, enter):
    page = enter(collection())
    for key, arrow, side in (("1", "ArrowUp", "left-2"), ("3", "ArrowDown", "tie")):
        page.keyboard.press(key)
        page.keyboard.press(arrow)
        assert chosen(page) == side
        assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator("#status").inner_text() == "= equally good", "said, since it has no focus"
    page.locator("label:has([value=tie][name=side])").click()
    page.keyboard.press("ArrowRight")
    assert chosen(page) == "right-1", "whoever is in the group moves in it"
    page.keyboard.press("2")
    page.keyboard.press("ArrowDown")
    assert chosen(page) == "left-1"


def test_another_language_keeps_what_was_typed(collection, enter):
    there = collection()
    page = enter(there)
    write(page, "typed")
    for key in ("q", "u", "2"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    page.locator("button[name=language]").click()
    page.wait_for_selector("html[lang=zh]")
    page.wait_for_function("() => document.querySelector('#comment').value === 'typed'")
    assert chosen(page) == "left-1"
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('[name=side]:checked')")
    (judgement,) = there.judgements()
    assert judgement.comment == "typed" and judgement.flags == ["unclear_intention"]
    assert judgement.criteria and judgement.milliseconds >= 250


@pytest.mark.parametrize("lost", ["network", "session"])
def test_guidelines_that_cannot_be_read(collection, enter, lost):
    there = collection()
    page = enter(there)
    write(page, "typed")
    before = page.url
    if lost == "network":
        page.context.set_offline(True)
    else:
        there.now += 13 * 3600
    page.keyboard.press("g")
    told = page.wait_for_selector("#status.wrong").inner_text()
    assert told == pages.texts("en")["script"]["unread"]
    assert page.url == before and page.locator("#comment").input_value() == "typed"
    assert page.locator("dialog[open]").count() == 0


def test_the_guidelines_of_the_page(collection, enter):
    """Not newer ones: its label will name these."""
    there = collection()
    page = enter(there)
    with writing(there.engine) as db:
        publish(db, "Be kind.", there.now)
    page.keyboard.press("g")
    read = page.wait_for_selector("dialog[open] .text").inner_text()
    assert "Version 1" in read and "Be kind." not in read
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("g")
    assert "Be kind." in page.wait_for_selector("dialog[open] .text").inner_text()
