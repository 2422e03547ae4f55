"""The administrator's page over HTTP: what it shows, and what its forms do."""

import json
import re

import pytest
from sqlalchemy import select

from glm_jax.data import records
from glm_jax.data.collection.exports import exporting
from glm_jax.data.collection.labelling.places import invalidated
from glm_jax.data.collection.store import reading
from glm_jax.data.collection.tables import Assignment, Change, Guidelines, Person, Retraction
from glm_jax.data.collection.web import latest, pages
from glm_jax.data.collection.web.app import create_app
from glm_jax.data.collection.web.latest import REST
from glm_jax.data.records import Pair


@pytest.fixture
def there(collection, monkeypatch):
    """Its figures cost nothing, however busy the machine is."""
    monkeypatch.setattr(latest, "TIMES", 0)
    return collection(overlap=1.0, annotators=2)


def judge_all(browser, side="left-2", n=5):
    for _ in range(n):
        assert browser.submit("/judge", side=side, milliseconds="2000").status_code == 303


def found(there, table):
    with reading(there.engine) as db:
        rows = list(db.scalars(select(table).order_by(table.id)))
        db.expunge_all()
        return rows


def person(there, name):
    return next(row for row in found(there, Person) if row.name == name)


def act(there, boss, action, name, **fields):
    token = boss.form("/admin/invite", "/admin")["csrf"]
    data = {"csrf": token, "person": str(person(there, name).id), **fields}
    return boss.post(f"/admin/{action}", data=data, follow_redirects=False)


def test_the_page_shows_what_was_judged(there):
    boss = there.annotator("lead", "administrator")
    empty = boss.get("/admin")
    assert empty.status_code == 200 and "<svg" not in empty.text
    for name in ("Ana", "<b>Bo</b>"):
        judge_all(there.annotator(name))
    there.now += REST - 1
    assert "<svg" not in boss.get("/admin").text, "figures rest for a while"
    there.now += 1
    page = boss.get("/admin").text
    assert page.count("<svg") >= 5 and "<b>Bo" not in page and "&lt;b&gt;Bo" in page
    assert "5 judged" in page and "by 2 people" in page
    assert re.search(r"left answer preferred</dt><dd>100\.0", page)
    # a strict content policy lets no inline style or script pass
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=", page)
    boss.submit("/language", "/admin", language="zh")
    chinese = boss.get("/admin").text
    assert "一致性" in chinese and "Agreement" not in chinese


def test_time_that_nobody_measured_is_a_dash(there):
    """Of an annotator whose browser runs no script."""
    ana = there.annotator("Ana")
    for _ in range(5):
        ana.submit("/judge", side="tie")
    page = there.annotator("lead", "administrator").get("/admin")
    assert page.status_code == 200
    assert '<th scope="row">Ana</th><td>5</td><td>–</td>' in page.text
    judge_all(there.annotator("Bo"))
    there.now += REST
    page = there.annotator("boss", "administrator").get("/admin").text
    assert '<th scope="row">Ana</th><td>5</td><td>–</td>' in page
    assert '<th scope="row">Bo</th><td>5</td><td>2\u202fs</td>' in page


def test_figures_rest_the_longer_the_more_they_cost(there, monkeypatch):
    boss = there.annotator("lead", "administrator")
    monkeypatch.setattr(latest, "TIMES", 1e9)
    boss.get("/admin")
    judge_all(there.annotator("Ana"))
    there.now += REST
    assert "<svg" not in boss.get("/admin").text


def test_nobody_waits_for_figures_that_another_look_works_out(there):
    boss = there.annotator("lead", "administrator")
    boss.get("/admin")
    there.now += 1000 * REST
    with there.app.app.state.figures._lock:
        assert boss.get("/admin").status_code == 200


def test_a_personal_link_is_shown_once_and_works_until_the_next(there):
    boss = there.annotator("lead", "administrator")
    page = boss.submit("/admin/invite", "/admin", name="Ana", role="annotator").text
    link = re.search(r"http://localhost(/enter/[\w-]+)", page)[1]
    assert link not in boss.get("/admin").text
    again = boss.submit("/admin/invite", "/admin", name="Ana", role="annotator").text
    new = re.search(r"http://localhost(/enter/[\w-]+)", again)[1]
    ana = there.browser()
    assert ana.submit(link, link).status_code == 403
    assert ana.submit(new, new).status_code == 303
    assert ana.get("/admin").status_code == 403
    for fields in ({"name": " "}, {"name": "Eve", "role": "administrator"}, {"name": "lead"}):
        data = {"name": "Ana", "role": "annotator"} | fields
        assert boss.submit("/admin/invite", "/admin", **data).status_code == 409
    assert [row.name for row in found(there, Person)] == ["lead", "Ana"]


@pytest.mark.parametrize(
    ("url", "link"),
    [("https://labels.example", "https://labels.example/enter/"), (None, "http://evil/enter/")],
)
def test_a_personal_link_leads_where_the_server_is(collection, url, link):
    """A request's word for it is taken only where nobody has said it."""
    boss = collection(app={"url": url}).annotator("lead", "administrator")
    page = boss.submit("/admin/invite", "/admin", {"Host": "evil"}, name="Ana", role="annotator")
    assert page.status_code == 200 and re.findall(r"[\w:/.]*/enter/", page.text) == [link]


def test_what_no_senior_may_decide_is_said(there):
    """Until an annotator, who has judged those pairs, is made a senior."""
    boss, ana, bo = there.annotator("lead", "administrator"), *map(there.annotator, ("Ana", "Bo"))
    judge_all(ana, "tie")
    judge_all(bo, "cannot_judge")
    assert "5 of these cannot be decided" in boss.get("/admin").text
    assert boss.submit("/admin/invite", "/admin", name="Ana", role="senior").status_code == 200
    there.now += REST
    page = boss.get("/admin").text
    assert "cannot be decided" not in page
    assert len(boss.get("/admin/export/aggregated").text.splitlines()) == 5


def test_pause_and_resume(there):
    boss, ana = there.annotator("lead", "administrator"), there.annotator("Ana")
    assert act(there, boss, "pause", "Ana").headers["location"] == "/admin#people"
    assert person(there, "Ana").state == "paused"
    assert 'action="/judge"' not in ana.get("/").text
    act(there, boss, "resume", "Ana")
    assert 'action="/judge"' in ana.get("/").text
    assert [row.kind for row in found(there, Change)][-2:] == ["paused", "resumed"]


def test_invalid_labels_leave_figures_and_exports_at_once_and_come_back(there):
    boss = there.annotator("lead", "administrator")
    judge_all(there.annotator("Ana"))
    judge_all(there.annotator("Bo"))
    assert "10 in all" in boss.get("/admin").text
    assert act(there, boss, "invalidate", "Bo").status_code == 409, "it takes a reason"
    assert not found(there, Retraction)
    act(there, boss, "invalidate", "Bo", reason="<i>random")
    page = boss.get("/admin").text
    assert "5 in all" in page and "&lt;i&gt;random" in page and "labels do not count" in page
    rows = [json.loads(row) for row in boss.get("/admin/export/raw").text.splitlines()]
    assert [row["annotator"] for row in rows] == ["Ana"] * 5
    act(there, boss, "restore", "Bo", reason="a mistake")
    assert "10 in all" in boss.get("/admin").text
    assert len(boss.get("/admin/export/raw").text.splitlines()) == 10
    with reading(there.engine) as db:
        assert not db.scalars(invalidated()).all()


def test_open_pairs_go_to_others(there):
    boss, ana = there.annotator("lead", "administrator"), there.annotator("Ana")
    button = 'action="/admin/reassign"'
    assert button not in boss.get("/admin").text
    ana.get("/")
    assert [row.fate for row in found(there, Assignment)] == ["open"]
    assert button in boss.get("/admin").text, "at once, whatever the figures say"
    act(there, boss, "reassign", "Ana")
    assert [row.fate for row in found(there, Assignment)] == ["returned"]
    assert button not in boss.get("/admin").text


def test_guidelines_get_versions_that_a_restart_keeps(there):
    boss, ana = there.annotator("lead", "administrator"), there.annotator("Ana")
    judge_all(ana, n=1)
    assert boss.submit("/admin/guidelines", "/admin", text=" ").status_code == 409
    for _ in range(2):  # the same text again is no new version
        boss.submit("/admin/guidelines", "/admin", text="Be kind.\r\n\r\n* Read.")
    assert "Be kind." in ana.get("/guidelines").text
    judge_all(ana, n=1)
    assert [row.guidelines for row in there.judgements()] == [1, 2]
    create_app(there.engine, there.config, clock=lambda: there.now)
    with reading(there.engine) as db:
        texts = list(db.scalars(select(Guidelines.text).order_by(Guidelines.version)))
    assert len(texts) == 2 and texts[1] == "Be kind.\n\n* Read."


def test_downloads_are_what_the_command_writes(there, tmp_path):
    boss = there.annotator("lead", "administrator")
    for name, side in (("Ana", "left-1"), ("Bo", "tie")):
        judge_all(there.annotator(name), side)
    for kind, (_, suffix) in exporting.KINDS.items():
        answer = boss.get(f"/admin/export/{kind}")
        assert answer.status_code == 200
        assert answer.headers["content-disposition"] == f'attachment; filename="{kind}.{suffix}"'
        with reading(there.engine) as db:
            if kind in ("gold", "repeats"):
                assert answer.content == b""
                continue
            exporting.export(db, kind, tmp_path / f"{kind}.{suffix}")
        assert answer.content == (tmp_path / f"{kind}.{suffix}").read_bytes()
    (tmp_path / "raw.jsonl").write_bytes(boss.get("/admin/export/raw").content)
    pairs = records.read(tmp_path / "raw.jsonl", Pair)
    assert sorted((p.annotator, p.tie) for p in pairs) == [("Ana", 0)] * 5 + [("Bo", 1)] * 5
    assert boss.get("/admin/export/everything").status_code == 404


def test_nobody_else_gets_in_and_forms_need_their_token(there):
    boss, ana = there.annotator("lead", "administrator"), there.annotator("Ana")
    ana.get("/")
    before = there.everything()
    forms = ["invite", "pause", "resume", "invalidate", "restore", "reassign", "guidelines"]
    token = ana.form("/judge")["csrf"]
    for form in forms:
        data = {"name": "Eve", "role": "senior", "person": "1", "reason": "x", "text": "x"}
        assert boss.post(f"/admin/{form}", data=data | {"csrf": token}).status_code == 403
        assert ana.post(f"/admin/{form}", data=data | {"csrf": token}).status_code == 403
        assert there.browser().post(f"/admin/{form}", data=data).status_code == 401
    for kind in exporting.KINDS:
        assert ana.get(f"/admin/export/{kind}").status_code == 403
        assert there.browser().get(f"/admin/export/{kind}").status_code == 401
    assert act(there, boss, "pause", "lead").status_code == 409, "administrators judge nothing"
    assert act(there, boss, "promote", "Ana").status_code == 404
    for number in ("999", "-1", "x", "9" * 40, "１"):
        fields = {"csrf": boss.form("/admin/invite", "/admin")["csrf"], "person": number}
        assert boss.post("/admin/pause", data=fields).status_code == 409
    after = there.everything()
    assert {name for name in before if before[name] != after[name]} <= {"logins"}


def test_every_export_is_explained():
    assert set(pages.texts("admin.en")["kinds"]) == set(exporting.KINDS)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "lead"}, "“lead”已经存在，其角色与所选的不同。"),
        ({"name": "{x}\tAna"}, "名称应为一行，1 到 64 个字符；收到的是“{x}\tAna”。"),
        ({"role": "administrator"}, "此处只能邀请标注员或资深标注员。"),
    ],
)
def test_an_invitation_that_is_refused_is_said_in_chinese(collection, fields, told):
    boss = collection(language="zh").annotator("lead", "administrator")
    data = {"name": "Ana", "role": "annotator"} | fields
    answer = boss.submit("/admin/invite", "/admin", {"Accept": "application/json"}, **data)
    assert answer.status_code == 409 and answer.json()["error"] == told
