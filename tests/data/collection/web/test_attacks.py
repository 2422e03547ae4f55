"""What must not work: each attempt gets a clear answer and changes nothing in the database."""

import re
from collections.abc import Callable

import pytest

from glm_jax.data.collection.web.envelope import LARGEST_BODY

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SQL = "'; DROP TABLE judgements; --"
ADMIN_FORMS = ("invite", "pause", "resume", "invalidate", "restore", "reassign")

ATTEMPTS: dict[str, tuple[int, Callable]] = {}


def attempt(status: int, name: str | None = None):
    """Registers `attempt(anna, ben, form)`, which the server answers with this status.

    Anna and Ben are signed in; `form` is Anna's own, filled in rightly.
    """

    def register(function: Callable) -> Callable:
        ATTEMPTS[name or function.__name__] = (status, function)
        return function

    return register


@attempt(401)
def judging_without_a_session(anna, ben, form):
    anna.cookies.clear()
    return anna.post("/judge", data=form)


@attempt(401)
def judging_with_a_made_up_session(anna, ben, form):
    anna.cookies.clear()
    anna.cookies.set("session", "A" * 43)
    return anna.post("/judge", data=form)


@attempt(401)
def the_guidelines_without_a_session(anna, ben, form):
    anna.cookies.clear()
    return anna.get("/guidelines")


@attempt(401)
def the_administration_without_a_session(anna, ben, form):
    anna.cookies.clear()
    return anna.get("/admin")


@attempt(403)
def the_administration_as_an_annotator(anna, ben, form):
    return anna.get("/admin")


@attempt(403)
def an_export_as_an_annotator(anna, ben, form):
    return anna.get("/admin/export/raw")


for _what in ADMIN_FORMS:

    @attempt(403, f"{_what}_as_an_annotator")
    def _administering(anna, ben, form, what=_what):
        fields = {"csrf": form["csrf"], "name": "Eve", "role": "administrator", "person": "1"}
        return anna.post(f"/admin/{what}", data=fields)


@attempt(409)
def the_assignment_of_another(anna, ben, form):
    return anna.post("/judge", data=form | {"assignment": ben.form("/judge")["assignment"]})


@attempt(403)
def the_token_of_another(anna, ben, form):
    return anna.post("/judge", data=form | {"csrf": ben.form("/judge")["csrf"]})


for _id in ("1", "", "A" * 22, SQL, "../admin", "a" * 5000, "☃"):

    @attempt(409, f"assignment_{_id[:12]!r}")
    def _forged(anna, ben, form, forged=_id):
        return anna.post("/judge", data=form | {"assignment": forged})


for _field, _value in {
    "side": "both", "strength": "3", "milliseconds": "-1", "helpfulness": SQL, "flags": "clear",
    "attempt": "2", "comment": "x" * 5000,
}.items():  # fmt: skip

    @attempt(409, f"{_field}={_value[:5]}")
    def _wrong(anna, ben, form, field=_field, value=_value):
        side = "left" if field == "strength" else form["side"]
        return anna.post("/judge", data=form | {"side": side, field: value})


for _number in ("1e3", "99999999999", "٣", "0x10", "1.5", "NaN"):

    @attempt(409, f"milliseconds={_number}")
    def _no_number(anna, ben, form, number=_number):
        return anna.post("/judge", data=form | {"milliseconds": number})


@attempt(409)
def no_side(anna, ben, form):
    return anna.post("/judge", data={k: v for k, v in form.items() if k != "side"})


@attempt(409)
def two_sides(anna, ben, form):
    return anna.post("/judge", data=form | {"side": ["left-1", "right-1"]})


@attempt(409)
def undoing_nothing(anna, ben, form):
    return anna.post("/undo", data=form)


@attempt(403)
def no_token(anna, ben, form):
    return anna.post("/judge", data={k: v for k, v in form.items() if k != "csrf"})


@attempt(403)
def an_empty_token(anna, ben, form):
    return anna.post("/judge", data=form | {"csrf": ""})


@attempt(403)
def a_token_that_is_no_text(anna, ben, form):
    return anna.post("/undo", content=b"csrf=%FF%FE", headers=FORM)


@attempt(403)
def a_form_from_another_site(anna, ben, form):
    return anna.post("/judge", data=form, headers={"Origin": "https://evil.example"})


@attempt(403)
def a_form_from_nowhere(anna, ben, form):
    return anna.post("/judge", data=form, headers={"Origin": "null"})


@attempt(403)
def a_form_from_a_neighbour(anna, ben, form):
    return anna.post("/judge", data=form, headers={"Sec-Fetch-Site": "same-site"})


@attempt(403)
def signing_out_somebody_else(anna, ben, form):
    return anna.post("/logout", data={"csrf": "guess"})


@attempt(413)
def an_oversized_body(anna, ben, form):
    return anna.post("/judge", data=form | {"comment": "x" * LARGEST_BODY})


@attempt(413)
def an_oversized_body_of_no_declared_length(anna, ben, form):
    pieces = (b"comment=" + b"x" * 1000 for _ in range(LARGEST_BODY // 1000 + 1))
    return anna.post("/judge", content=pieces, headers=FORM)


@attempt(415)
def json_instead_of_a_form(anna, ben, form):
    return anna.post("/judge", json=form)


@attempt(415)
def a_file(anna, ben, form):
    return anna.post("/judge", data=form, files={"comment": b"x"})


@attempt(415)
def no_body_at_all(anna, ben, form):
    return anna.post("/judge")


@attempt(400)
def a_body_that_is_no_form(anna, ben, form):
    return anna.post("/judge", content=b"\xff\x00{[%%%&&&===;;;", headers=FORM)


@attempt(400)
def a_character_that_no_database_keeps(anna, ben, form):
    return anna.post("/judge", data=form | {"comment": "a\0b"})


for _method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):

    @attempt(405, f"{_method}_instead_of_POST")
    def _method_of(anna, ben, form, method=_method):
        return anna.request(method, "/judge")


@attempt(405)
def posting_to_a_page(anna, ben, form):
    return anna.post("/guidelines", data=form)


for _path in ("/docs", "/openapi.json", "/static/../app.py", "/static/%2e%2e/app.py", "/admin/x/y",
              "/.git/config", f"/{SQL}", "/login/", "/enter/x/", "/admin/", "/static",
              "//evil.example/login/"):  # fmt: skip

    @attempt(404, _path)
    def _no_page(anna, ben, form, path=_path):
        return anna.get(path, headers={"Host": "evil.example"}, follow_redirects=False)


for _secret in ("guess", SQL, "%00", "é" * 3):

    @attempt(403, f"link_{_secret[:5]!r}")
    def _guessing(anna, ben, form, secret=_secret):
        return anna.post(f"/enter/{secret}", data=form)


for _name, _password in (("Anna", ""), ("Anna", "x"), (SQL, SQL), ("lead", "' OR 1=1"), ("", "")):

    @attempt(403, f"password_of_{_name[:4]!r}_{_password[:1]!r}")
    def _password_of(anna, ben, form, name=_name, password=_password):
        anna.cookies.clear()
        return anna.submit("/login", "/login", name=name, password=password)


@attempt(400)
def a_language_that_is_none(anna, ben, form):
    return anna.post("/language", data=form | {"language": "../../etc/passwd"})


@pytest.fixture(scope="module")
def office(collections):
    """Nothing may change, so that one collection does for all attempts."""
    there = collections()
    there.link("lead", "administrator")
    anna, ben = there.annotator("Anna"), there.annotator("Ben")
    return there, anna, ben, anna.form("/judge") | {"side": "left-2"}, ben.form("/judge")


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt(office, name):
    status, act = ATTEMPTS[name]
    there, *signed_in, form, _ = office
    before = there.everything()
    anna, ben = (there.browser(like=each) for each in signed_in)
    answer = act(anna, ben, form)
    assert answer.status_code == status
    assert there.everything() == before
    assert re.search(r"<h1>(Sign in|This did not work)</h1>", answer.text), "a page says why"
    assert "Traceback" not in answer.text and "glm_jax" not in answer.text


def test_the_right_form_does_work(collection):
    """So that the attempts fail for what is wrong with them."""
    there = collection()
    anna = there.annotator("Anna")
    form = anna.form("/judge") | {"side": "left-2"}
    right = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert anna.post("/judge", data=form, headers=right, follow_redirects=False).status_code == 303
    assert len(there.judgements()) == 1
