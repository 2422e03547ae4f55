"""The ways in and out: personal links, passwords, and the choice of a language."""

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from glm_jax.data.collection import Refused, people
from glm_jax.data.collection.store import reading, writing
from glm_jax.data.collection.tables import Person
from glm_jax.data.collection.web import pages, security
from glm_jax.data.collection.web.problems import done
from glm_jax.data.collection.web.security import CheckedForm, OpenForm

routes = APIRouter()


@routes.get("/enter/{secret}")
def invitation(request: Request) -> Response:
    return pages.render(request, "enter.html.j2", action=request.url.path)


@routes.post("/enter/{secret}")
def enter(request: Request, secret: str, form: OpenForm) -> Response:
    security.limit(request, "entering")
    state = request.app.state
    try:
        with writing(state.engine) as db:
            people.sign_out(db, security.session_secret(request))
            cookie = people.enter(db, secret, state.clock(), hours=state.config.session_hours)
    except Refused:
        raise HTTPException(403, "wrong_link") from None
    return _signed_in(request, cookie)


@routes.get("/login")
def login_page(request: Request) -> Response:
    return pages.render(request, "login.html.j2", wrong=None)


@routes.post("/login")
def login(request: Request, form: OpenForm) -> Response:
    security.limit(request, "password")
    state = request.app.state
    name, password = str(form.get("name", "")), str(form.get("password", ""))
    hours = state.config.session_hours
    security.limit(request, "name", people.known_as(name)[: people.LONGEST_NAME])
    try:
        with reading(state.engine) as db:
            who = people.verified(db, name, password)
        with writing(state.engine) as db:
            people.sign_out(db, security.session_secret(request))
            cookie = people.sign_in(db, who, state.clock(), hours=hours)
    except Refused:
        wrong = pages.texts(pages.language(request))["login"]["wrong"]
        return pages.render(request, "login.html.j2", 403, wrong=wrong)
    return _signed_in(request, cookie)


@routes.post("/logout")
def logout(request: Request, form: CheckedForm) -> Response:
    state = request.app.state
    with writing(state.engine) as db:
        people.sign_out(db, security.session_secret(request))
    response = RedirectResponse("/", 303)
    security.drop_cookie(request, response, "session")
    return response


@routes.post("/language")
def choose_language(request: Request, form: OpenForm) -> Response:
    chosen = str(form.get("language"))
    if chosen not in pages.LANGUAGES:
        raise HTTPException(400)
    who = security.visitor(request)
    response = done(request)
    if who:
        with writing(request.app.state.engine) as db:
            db.get_one(Person, who.person.id).language = chosen
    else:
        security.put_cookie(request, response, "language", chosen, pages.HOURS)
    return response


def _signed_in(request: Request, cookie: str) -> Response:
    response = RedirectResponse("/", 303)
    hours = request.app.state.config.session_hours
    security.put_cookie(request, response, "session", cookie, hours)
    security.drop_cookie(request, response, "form")
    return response
