"""What is typed and chosen: nothing loses it, and no key changes it unasked."""

from typing import Any

import pytest

from glm_jax.data.collection.store import writing
from glm_jax.data.collection.web import pages
from glm_jax.data.collection.web.guidelines import publish


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


def test_only_visible_active_time_counts(collection, enter):
    """Ten seconds; then hidden; then 65 of which the last five are without a sign of life."""
    there = collection()
    page = enter(there)
    page.clock.install()
    page.reload()
    page.clock.run_for(10_000)
    for state, seconds in (("hidden", 300), ("visible", 0)):
        page.evaluate(
            """state => {
                Object.defineProperty(document, "visibilityState", {value: state, configurable: 1});
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            state,
        )
        page.clock.run_for(1000 * seconds)
    page.keyboard.press("1")
    page.clock.run_for(65_000)
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('[name=side]:checked')")
    (judgement,) = there.judgements()
    assert 69_000 <= judgement.milliseconds <= 80_000, "120 s with what was hidden"


def test_a_held_key_answers_one_pair(collection, enter):
    """Not also the next one, which undo has brought back half filled in."""
    there = collection()
    page = enter(there)
    first = page.locator("#judge [name=assignment]").input_value()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    second = turned(page, first)
    page.keyboard.press("2")
    page.keyboard.press("b")
    assert turned(page, second) == first
    page.keyboard.down("Enter")
    assert turned(page, first) == second and chosen(page) == "left-1"
    page.keyboard.down("Enter")
    page.wait_for_timeout(300)
    assert page.locator("#judge [name=assignment]").input_value() == second
    assert len(there.judgements()) == 2
    page.keyboard.up("Enter")
    page.keyboard.press("Enter")
    turned(page, second)
    assert len(there.judgements()) == 3


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


def turned(page: Any, before: str) -> str:
    """Which pair is shown, once it is another one and nothing is under way."""
    page.wait_for_function(
        """old => {
            const found = document.querySelector("main:not([aria-busy]) [name=assignment]");
            return found && found.value !== old;
        }""",
        arg=before,
    )
    return page.locator("#judge [name=assignment]").input_value()


@pytest.mark.parametrize("renewed", [False, True], ids=["one-session", "newer-session"])
@pytest.mark.parametrize("sent_from", ["comment", "scale"])
def test_nothing_changes_what_is_under_way(collection, enter, sent_from, renewed):
    """Neither keys nor clicks: undo fills in what was sent."""
    there = collection()
    page = enter(there)
    asked = []
    refusals = [{"status": 403, "json": {"error": "stale"}}] * renewed

    def waits(route: Any) -> None:
        route.fulfill(**refusals.pop()) if refusals else asked.append(route)

    page.route("**/judge", waits)
    before = page.locator("#judge [name=assignment]").input_value()
    page.keyboard.press("q")
    write(page, "as sent")
    page.locator("label:has([value=left-2])").click()
    if sent_from == "comment":
        page.keyboard.press("m")
    page.keyboard.press("Control+Enter")
    while not asked:
        page.wait_for_timeout(20)
    page.keyboard.press("ArrowDown")
    page.keyboard.type("5wumore")
    for name in ("[value=right-1]", "[value=unanswerable]"):
        box = page.locator(f"label:has({name})").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(*(page.locator("#comment").bounding_box()[side] + 5 for side in "xy"))
    page.keyboard.type("more")
    assert chosen(page) == "left-2"
    asked[0].continue_()
    page.unroute("**/judge")
    after = turned(page, before)
    page.keyboard.press("b")
    assert turned(page, after) == before
    assert chosen(page) == "left-2" and page.locator("#comment").input_value() == "as sent"
    ticked = page.locator("#judge .details input:checked")
    assert ticked.evaluate_all("all => all.map((field) => field.value)") == ["left"]
    page.keyboard.press("5")
    assert chosen(page) == "right-2", "and then it is its annotator's again"


def test_drafts_are_few_and_go_with_the_session(collection, enter, pair):
    """Of the pairs that undo can bring back; with no token, and none of it after signing out."""
    there = collection([pair(i) for i in range(14)])
    page = enter(there)
    token = page.locator("#judge [name=csrf]").input_value()
    shown = [page.locator("#judge [name=assignment]").input_value()]
    page.evaluate(
        """const put = Storage.prototype.setItem;
        Storage.prototype.setItem = function (...it) { everything += it; put.apply(this, it); };
        window.everything = "";"""
    )
    for i in range(13):
        write(page, f"thought {i}.")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        shown.append(turned(page, shown[-1]))
    put, left = page.evaluate("[everything, JSON.stringify({...sessionStorage})]")
    assert "thought+12." in put and token not in put and "csrf" not in put
    assert [i for i in range(13) if f"thought+{i}." in left] == [*range(2, 13)], (
        "one more until this pair has a draft"
    )
    for i in reversed(range(3, 13)):
        page.keyboard.press("b")
        assert turned(page, shown[i + 1]) == shown[i]
        assert page.locator("#comment").input_value() == f"thought {i}."
    page.locator("[action='/logout'] button").click()
    page.wait_for_selector("form.login")
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0
