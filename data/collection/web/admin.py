"""The administrator's page: what the labels are worth, who makes them, and what to do about it."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response, StreamingResponse

from glm_jax.data.agreement import SHARED
from glm_jax.data.collection import Refused, people
from glm_jax.data.collection.exports import exporting
from glm_jax.data.collection.labelling import assignment, judging, places
from glm_jax.data.collection.store import reading, writing
from glm_jax.data.collection.tables import Change, Person, Retraction
from glm_jax.data.collection.web import guidelines, pages
from glm_jax.data.collection.web.security import Administrator, CheckedForm, administrator

INVITED = ("annotator", "senior")  # administrators are made on the command line
EVENTS = 12  # of the last that are shown
CHUNK = 2**16  # bytes of a download that are sent at a time


# whoever is no administrator gets 401 or 403 from each of them
routes = APIRouter(prefix="/admin", dependencies=[Depends(administrator)])


@routes.get("")
def page(request: Request) -> Response:
    return _page(request)


@routes.post("/invite")
def invite(request: Request, who: Administrator, form: CheckedForm) -> Response:
    """The only answer that ever holds the personal link: what is stored is a hash of it."""
    name, role = str(form.get("name", "")).strip(), str(form.get("role"))
    if role not in INVITED:
        raise Refused("people are invited here as {roles}", roles=" or ".join(INVITED))
    state = request.app.state
    with writing(state.engine) as db:
        secret = people.invite(db, name, role, state.clock(), who.person)
    there = (state.url or str(request.base_url)).rstrip("/")
    return _page(request, invited={"name": name, "link": f"{there}/enter/{secret}"})


@routes.post("/guidelines")
def publish(request: Request, who: Administrator, form: CheckedForm) -> Response:
    """A new version of the guidelines, which every judgement of a page from now on carries."""
    text = str(form.get("text", "")).replace("\r\n", "\n").strip()
    if not text:
        raise Refused("guidelines need a text")
    now = request.app.state.clock()
    with writing(request.app.state.engine) as db:
        before = guidelines.newest(db).version
        version = guidelines.publish(db, text, now)
        if version != before:
            about = {"version": version}
            db.add(Change(kind="guidelines", by_id=who.person.id, about=about, created=now))
    return RedirectResponse("/admin#guidelines", 303)


@routes.post("/{action}")
def act(request: Request, action: str, who: Administrator, form: CheckedForm) -> Response:
    """Pauses, resumes, invalidates or restores a person, or gives the pairs he has to others."""
    state, reason = request.app.state, str(form.get("reason", "")).strip()
    now = state.clock()
    with writing(state.engine) as db:
        by, person = who.person, _person(db, form)
        if action == "pause":
            people.pause(db, person, by, now)
        elif action == "resume":
            people.resume(db, person, by, now)
        elif action == "reassign":
            assignment.reassign(db, person, by, state.config, now)
        elif action in ("invalidate", "restore"):
            if not reason:
                raise Refused("say why: the reason is kept with the change")
            change = judging.invalidate if action == "invalidate" else judging.restore
            change(db, person, by, reason, now)
        else:
            raise HTTPException(404)
    return RedirectResponse("/admin#people", 303)


@routes.get("/export/{kind}")
def export(request: Request, kind: str) -> Response:
    """A download that is made while it is sent."""
    if kind not in exporting.KINDS:
        raise HTTPException(404)
    suffix = exporting.KINDS[kind][1]
    types = {
        "csv": "text/csv; charset=utf-8", "json": "application/json", "jsonl": "application/jsonl"
    }  # fmt: skip

    def parts() -> Iterator[bytes]:
        with reading(request.app.state.engine) as db:
            yield from exporting.encoded(kind, exporting.rows(db, kind))

    headers = {"Content-Disposition": f'attachment; filename="{kind}.{suffix}"'}
    return StreamingResponse(_chunks(parts()), media_type=types[suffix], headers=headers)


def _page(request: Request, invited: dict[str, str] | None = None) -> Response:
    """People as they are at this moment, figures as they were lately."""
    state, language = request.app.state, pages.language(request)
    latest = state.figures.get(state.engine, state.config, language, state.clock())
    with reading(state.engine) as db:
        everybody = db.scalars(
            select(Person).where(Person.role.in_(INVITED)).order_by(Person.name)
        ).all()
        return pages.render(
            request,
            "admin.html.j2",
            a=pages.texts(f"admin.{language}"),
            numbers=latest.numbers,
            panels=latest.panels,
            people=everybody,
            held=assignment.held(db),
            invalidated=set(db.scalars(places.invalidated())),
            figures={row["name"]: row for row in latest.numbers["annotators"]},
            events=_events(db),
            guidelines=guidelines.newest(db),
            kinds=list(exporting.KINDS),
            invited=invited,
            pass_mark=state.config.pass_mark,
            shared=SHARED,
        )


def _events(db: Session) -> list[dict[str, Any]]:
    """What administrators did last, the newest first."""
    names = dict(db.execute(select(Person.id, Person.name)).all())
    changes = db.scalars(select(Change).order_by(Change.id.desc()).limit(EVENTS)).all()
    whole = select(Retraction).where(Retraction.judgement_id.is_(None))
    retracted = db.scalars(whole.order_by(Retraction.id.desc()).limit(EVENTS)).all()
    found = [
        {
            "time": event.created,
            "kind": event.kind,
            "person": names.get(event.person_id),
            "by": names.get(event.by_id),
            "reason": getattr(event, "reason", None),
        }
        for event in (*changes, *retracted)
    ]
    return sorted(found, key=lambda event: -event["time"])[:EVENTS]


def _person(db: Session, form: FormData) -> Person:
    """Whom the form is about; administrators judge nothing that could be paused or invalid."""
    number = str(form.get("person", ""))
    person = db.get(Person, int(number)) if number.isdecimal() and len(number) < 10 else None
    if person is None or person.role not in INVITED:
        raise Refused("there is no such annotator")
    return person


def _chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Fewer and larger ones: each costs the server a change of threads."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        if len(waiting) >= CHUNK:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)
