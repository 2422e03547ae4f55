"""The pages of a collection as a browser without script sees them."""

import re
import time

import pytest
from sqlalchemy import event, select

from glm_jax import configuration
from glm_jax.data.collection import people, tables
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.simulation.client import Page
from glm_jax.data.collection.store import writing
from glm_jax.data.collection.tables import Person
from glm_jax.data.collection.web.envelope import HEADERS
from glm_jax.data.records import Sample
from glm_jax.errors import InputError

JSON = {"Accept": "application/json"}


def text(html, side):
    return re.search(rf'data-text="{side}">(.*?)</div>', html, re.DOTALL)[1]


def test_from_the_personal_link_to_a_judgement(collection):
    there = collection()
    browser, link = there.browser(), there.link("Anna")
    assert "Sign in" in browser.get("/").text
    assert browser.get(link).text == browser.get(link).text, "looking uses nothing up"
    browser.submit(link, link)
    shown = browser.get("/").text
    done = browser.submit(
        "/judge", side="right-1", helpfulness="left", fluency="tie", comment="  it is\r\nshort ",
        flags=["unanswerable", "unclear_intention"], milliseconds=1234,
    )  # fmt: skip
    assert done.status_code == 303 and done.headers["location"] == "/"
    (judgement,) = there.judgements()
    right = text(shown, "right")
    with writing(there.engine) as db:
        of = db.get_one(tables.Pair, db.get_one(tables.Assignment, judgement.assignment_id).pair_id)
        first = db.get_one(tables.Response, of.first_id).text
    assert judgement.verdict == ("first" if first in right else "second")
    assert judgement.criteria["helpfulness"] != judgement.verdict
    assert judgement.criteria["fluency"] == "tie" and "harmlessness" not in judgement.criteria
    assert judgement.strength == 1 and judgement.comment == "it is\nshort"
    assert set(judgement.flags) == {"unanswerable", "unclear_intention"}
    assert judgement.milliseconds == 1234 and judgement.guidelines == 1
    assert browser.get("/").text.count("<progress") == 1
    assert 'value="1"></progress>' in browser.get("/").text
    browser.submit("/judge", side="tie")
    assert there.judgements()[1].milliseconds is None, "no script measured it"


@pytest.mark.parametrize(
    ("fields", "verdict", "strength"),
    [
        ({"side": "tie"}, {"tie"}, None),
        ({"side": "cannot_judge"}, {"cannot_judge"}, None),
        ({"side": "unwilling"}, {"unwilling"}, None),
        ({"side": "left", "strength": 2}, {"first", "second"}, 2),
    ],
)
def test_every_choice_is_kept_apart(collection, fields, verdict, strength):
    there = collection()
    assert there.annotator("Anna").submit("/judge", **fields).status_code == 303
    (judgement,) = there.judgements()
    assert judgement.verdict in verdict and judgement.strength == strength


def test_the_script_may_send_an_answer_twice(collection):
    there = collection()
    browser = there.annotator("Anna")
    form = browser.form("/judge") | {"side": "left-2"}
    for _ in range(2):
        answer = browser.post("/judge", data=form, headers=JSON)
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
    other = browser.post("/judge", data=form | {"side": "tie"}, headers=JSON)
    assert other.status_code == 409 and "already" in other.json()["error"]
    assert len(there.judgements()) == 1


def test_undo_shows_the_pair_again(collection):
    browser = collection().annotator("Anna")
    before = browser.form("/judge")
    browser.submit("/judge", side="tie")
    assert browser.form("/judge")["assignment"] != before["assignment"]
    assert browser.submit("/undo").status_code == 303
    again = browser.form("/judge")
    assert again["assignment"] == before["assignment"] and again["attempt"] == "2"
    nothing = browser.submit("/undo", headers=JSON)
    assert nothing.status_code == 409 and "nothing to undo" in nothing.json()["error"]


def test_an_undo_names_what_the_page_showed_as_the_last(collection):
    browser = collection().annotator("Anna")
    forms = []
    for _ in range(2):
        browser.submit("/judge", side="tie")
        forms.append(browser.form("/undo"))
    told = [browser.post("/undo", data=form, headers=JSON) for form in (*forms, forms[1])]
    assert [answer.status_code for answer in told] == [409, 200, 200]
    assert browser.form("/undo") == forms[0], "the second was undone once"


@pytest.mark.parametrize("asked", ["no", "optional", "required"])
def test_criteria_are_asked_as_configured(collection, asked):
    there = collection(criteria=asked)
    browser = there.annotator("Anna")
    assert ('name="harmlessness"' in browser.get("/").text) == (asked != "no")
    answer = browser.submit("/judge", side="left-1")
    assert answer.status_code == (409 if asked == "required" else 303)
    assert len(there.judgements()) == (asked != "required")


def test_nothing_tells_who_wrote_an_answer(collection):
    said = [{"role": "user", "content": "Hi"}]
    samples = [
        Sample(id="secret-model", sample=i, prompt=said, text=f"Answer {i}", tokens=[],
               log_probs=[], finish="stop", score=0.123456 + i)
        for i in range(2)
    ]  # fmt: skip
    shown = collection(samples).annotator("Anna").get("/").text
    assert "Answer 0" in shown and "Answer 1" in shown
    assert "secret-model" not in shown and "123456" not in shown


def test_answers_wait_for_the_disk_and_pages_do_not(collection):
    there, pragmas = collection(), []
    browser = there.annotator("Anna")

    @event.listens_for(there.engine, "before_cursor_execute")
    def executed(connection, cursor, statement, *_):
        if "synchronous" in statement:
            pragmas.append(statement.split()[-1])

    form = browser.form("/judge")
    assert "NORMAL" in pragmas
    pragmas.clear()
    browser.post("/judge", data=form | {"side": "tie"}, headers=JSON)
    assert len(there.judgements()) == 1 and set(pragmas) == {"FULL"}


def test_a_page_calls_its_reader_by_an_alias(collection):
    """Whoever knows the number of a person is one step nearer to what is drawn for him."""
    there = collection()
    for name in ("Anna", "Ben"):
        html = there.annotator(name).get("/").text
        with writing(there.engine) as db:
            person = db.scalars(select(Person).where(Person.name == name)).one()
        assert re.search(r'data-person="(.*?)"', html)[1] == person.alias
        assert len(person.alias) == 16 and str(person.id) != person.alias


def test_what_stands_in_texts_does_nothing(collection, pair):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>[x](javascript:alert(3)) ![y](//z)"
    said = [{"role": "system", "content": evil}, {"role": "user", "content": evil}]
    there = collection([pair(0, prompt=said, chosen=evil, rejected=evil + ".")], title=evil)
    shown = there.annotator(evil[:60]).get("/").text
    assert "<script>" not in shown and "<img" not in shown and 'href="java' not in shown
    assert shown.count("&lt;script&gt;alert(1)") >= 6, "each text is shown as it was written"


def test_a_session_ends(collection):
    there = collection(session_hours=1.0)
    browser = there.annotator("Anna")
    assert 'action="/judge"' in browser.get("/").text
    there.now += 3601
    assert "Sign in" in browser.get("/").text
    browser, other = there.annotator("Ben"), there.annotator("Cleo")
    kept = dict(browser.cookies)
    browser.submit("/logout")
    browser.cookies.update(kept)
    assert "Sign in" in browser.get("/").text, "the server has forgotten it, too"
    assert 'action="/judge"' in other.get("/").text


def test_a_password_signs_in(collection):
    there = collection()
    there.link("lead", "administrator")
    with writing(there.engine) as db:
        people.set_password(db, db.scalars(select(Person)).one(), "a long enough password")
    browser = there.browser()
    wrong = browser.submit("/login", "/login", name="lead", password="a long enough passwore")
    assert wrong.status_code == 403 and "password is wrong" in wrong.text
    right = browser.submit("/login", "/login", name="lead", password="a long enough password")
    assert right.status_code == 303
    assert browser.get("/", follow_redirects=False).headers["location"] == "/admin"


def test_cookies_are_for_this_server_alone(collection):
    there = collection(app={"secure": True})
    browser, link = there.browser(secure=True), there.link("Anna")
    answer = browser.submit(link, link)
    cookie = next(c for c in answer.headers.get_list("set-cookie") if "session=" in c)
    assert cookie.startswith("__Host-session=")
    for flag in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert flag in cookie
    assert "max-age" in answer.headers["strict-transport-security"]
    assert 'action="/judge"' in browser.get("/").text


@pytest.mark.parametrize(
    "path", ["/", "/login", "/nowhere", "/static/page.css", "/health", "/guidelines"]
)
def test_every_answer_carries_the_headers(collection, path):
    answer = collection().browser().get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "inline" not in answer.headers["content-security-policy"]
    assert "no-store" in answer.headers["cache-control"] or path.startswith("/static")


def test_pages_hold_no_script_of_their_own(collection):
    there = collection()
    for html in (there.annotator("Anna").get("/").text, there.browser().get("/login").text):
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style", html)


def test_every_page_of_an_annotator_delivers_what_waits(collection, pair):
    """Also where nothing is left: the last answer may still be on the device."""
    there = collection([pair(0)])
    anna, boss = there.annotator("Anna"), there.annotator("lead", "administrator")
    assert anna.submit("/judge", side="tie").status_code == 303
    for path in ("/", "/guidelines", "/nowhere"):
        shown = anna.get(path).text
        assert "/static/delivery.js" in shown and "data-person=" in shown, path
        assert shown.count('id="status"') == 1
    assert "Nothing is left" in anna.get("/").text
    for shown in (boss.get("/admin").text, there.browser().get("/login").text):
        assert ".js" not in shown and "data-person" not in shown


def test_practice_is_told_and_may_fail(collection, pair):
    there = collection(known=[pair(9)], pass_mark=1.0)
    browser = there.annotator("Anna")
    shown = browser.get("/").text
    assert 'class="practice"' in shown
    worse = "left" if "Bad" in text(shown, "left") else "right"
    browser.submit("/judge", side=f"{worse}-2")
    told = browser.get("/").text
    assert "was not passed" in told and 'action="/judge"' not in told


def test_a_paused_person_is_told(collection):
    there = collection()
    browser = there.annotator("Anna")
    form = browser.form("/judge") | {"side": "tie"}
    with writing(there.engine) as db:
        people.pause(db, db.scalars(select(Person)).one(), None, there.now)
    assert "paused" in browser.get("/").text
    assert browser.post("/judge", data=form).status_code == 409
    assert not there.judgements()


def test_whoever_is_done_may_still_undo(collection, pair):
    browser = collection([pair(0)]).annotator("Anna")
    browser.submit("/judge", side="tie")
    assert "Nothing is left" in browser.get("/").text
    browser.submit("/undo")
    assert browser.form("/judge")["attempt"] == "2"


def test_a_model_writes_more_pairs(collection, pair):
    more = [[pair(7)], []]
    there = collection([], app={"sampler": lambda: more.pop(0)})
    browser = there.annotator("Anna")
    waits = browser.get("/").text
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in waits
    assert Page(waits).again == 3
    while Page(browser.get("/").text).again:
        time.sleep(0.02)
    assert "Question 7" in browser.get("/").text
    browser.submit("/judge", side="tie")
    while Page(browser.get("/").text).again:
        time.sleep(0.02)
    assert not more and "Nothing is left" in browser.get("/").text


def test_health_needs_no_session(collection):
    browser = collection().browser()
    assert browser.get("/health").text == "ok" and browser.head("/health").status_code == 200


@pytest.mark.parametrize("key", ["session_hours", "lease_minutes", "annotators", "repeat_distance",
                                 "practice", "seed"])  # fmt: skip
def test_numbers_beyond_all_reason_are_refused(tmp_path, key):
    """Before someone signs in and the time that a session ends is no number any more."""
    file = tmp_path / "collection.yaml"
    file.write_text(f"title: x\n{key}: 1{'0' * 300}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"collection.yaml:2: '{key}' should be less than"):
        configuration.load(CollectionConfig, file)


@pytest.mark.parametrize("hours", [1e-9, 24 * 365])
def test_the_shortest_and_the_longest_session(collection, hours):
    there = collection(session_hours=hours, lease_minutes=60.0 * 24 * 365)
    browser = there.annotator("Anna")
    assert browser.get("/").status_code == 200
