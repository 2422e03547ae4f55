"""The annotator's page, and what is sent from it."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from glm_jax.data.collection import Refused
from glm_jax.data.collection.labelling import assignment, judging
from glm_jax.data.collection.labelling.answers import LONGEST_COMMENT, Answer
from glm_jax.data.collection.settings import CRITERIA
from glm_jax.data.collection.store import reading, writing
from glm_jax.data.collection.tables import Guidelines, Judgement, Person
from glm_jax.data.collection.web import guidelines, pages, security
from glm_jax.data.collection.web.problems import done
from glm_jax.data.collection.web.security import CheckedForm, SignedIn

LOOK_AGAIN = 3  # seconds, while a model writes new pairs

routes = APIRouter()


@routes.get("/")
def home(request: Request) -> Response:
    """The next pair; the login page for strangers, the administrator's for administrators."""
    if security.visitor(request) is None:
        return pages.render(request, "login.html.j2", wrong=None)
    who = security.signed_in(request)
    if who.person.role == "administrator":
        return RedirectResponse("/admin", 303)
    state = request.app.state
    with writing(state.engine, flushed=False) as db:
        shown = assignment.next_assignment(db, who.person, state.config, state.clock())
        last = judging.latest(db, who.person)
        standing = "" if shown else db.get_one(Person, who.person.id).state
    if shown is None:
        return _nothing_to_judge(request, standing, last)
    return pages.render(
        request,
        "annotate.html.j2",
        shown=shown,
        last=last,
        asked=state.config.criteria,
        longest_comment=LONGEST_COMMENT,
    )


@routes.post("/judge")
def judge(request: Request, who: SignedIn, form: CheckedForm) -> Response:
    state = request.app.state
    answer = _answer(form)
    with writing(state.engine) as db:
        judging.judge(db, who.person, answer, state.config, state.clock())
    return done(request)


@routes.post("/undo")
def undo(request: Request, who: SignedIn, form: CheckedForm) -> Response:
    state = request.app.state
    named = _text(form, "assignment"), _number(_text(form, "attempt"), "attempt")
    if not named[0]:  # of a page that had nothing to undo
        raise HTTPException(409, "no_undo")
    with writing(state.engine) as db:
        undone = judging.undo(db, who.person, state.clock(), named)
    if undone is None:
        raise HTTPException(409, "no_undo")
    return done(request)


@routes.get("/guidelines")
def show_guidelines(
    request: Request, who: SignedIn, version: Annotated[int | None, Query(ge=1, lt=2**31)] = None
) -> Response:
    """The newest; of a pair's page those that its label will name."""
    with reading(request.app.state.engine) as db:
        shown = db.get(Guidelines, version) if version else guidelines.newest(db)
    if shown is None:
        raise HTTPException(404)
    return pages.render(
        request,
        "guidelines.html.j2",
        version=shown.version,
        text=guidelines.in_language(shown.text, pages.language(request)),
        asked=request.app.state.config.criteria,
    )


def _answer(form: FormData) -> Answer:
    """What a form says; Refused when a field is not what our page would send.

    The page's scale says side and strength in one, as in "left-2": one press, with no script.
    """
    side, _, strength = _text(form, "side").partition("-")
    return Answer(
        assignment_id=_text(form, "assignment"),
        side=side,
        strength=_number(strength or _text(form, "strength"), "strength"),
        criteria={name: _text(form, name) for name in CRITERIA if _text(form, name)},
        flags=tuple(map(str, form.getlist("flags"))),
        comment=_text(form, "comment"),
        milliseconds=_number(_text(form, "milliseconds"), "milliseconds"),
        guidelines=_number(_text(form, "guidelines"), "guidelines") or 0,  # every page names one
        attempt=_number(_text(form, "attempt"), "attempt"),
    )


def _text(form: FormData, name: str) -> str:
    values = form.getlist(name)
    if len(values) > 1:
        raise Refused("the field '{name}' is given {n} times", name=name, n=len(values))
    return str(values[0]).strip().replace("\r\n", "\n") if values else ""


def _number(text: str, name: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Refused("the field '{name}' is not a whole number", name=name)
    return int(text)


def _nothing_to_judge(request: Request, standing: str, last: Judgement | None) -> Response:
    if standing in ("paused", "failed"):
        return _says(request, standing)
    live = request.app.state.live
    if live is not None and live.goes_on():
        return _says(request, "waiting", again=LOOK_AGAIN, last=last)
    return _says(request, "done", last=last)


def _says(request: Request, what: str, **values: object) -> Response:
    text = pages.texts(pages.language(request))[what]
    return pages.notice(request, text["heading"], text["text"], **values)
