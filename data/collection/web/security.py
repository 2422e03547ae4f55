"""Who is asking, and whether the form really comes from our page.

Dependencies for the routes: `signed_in`, `administrator`, `checked_form` (of a signed-in person)
and `open_form` (of anybody). The first three answer 401, 403 or 429 before anything else is done.
"""

import hmac
import secrets
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from glm_jax.data.collection import people
from glm_jax.data.collection.people import Visitor
from glm_jax.data.collection.store import can_be_kept, glancing
from glm_jax.data.collection.web.envelope import TooLarge, declares_too_much

FORM = "application/x-www-form-urlencoded"


def cookie_name(request: Request, what: str) -> str:
    """Browsers take a cookie named __Host-... only over TLS, and from this very host."""
    return f"__Host-{what}" if request.app.state.secure else what


def put_cookie(request: Request, response: Response, what: str, value: str, hours: float) -> None:
    response.set_cookie(
        cookie_name(request, what),
        value,
        max_age=round(hours * 3600),
        secure=request.app.state.secure,
        httponly=True,
        samesite="lax",
    )


def drop_cookie(request: Request, response: Response, what: str) -> None:
    response.delete_cookie(
        cookie_name(request, what), secure=request.app.state.secure, httponly=True, samesite="lax"
    )


def session_secret(request: Request) -> str:
    return request.cookies.get(cookie_name(request, "session"), "")


def visitor(request: Request) -> Visitor | None:
    """Who is signed in, if anybody; asked of the database once a request."""
    if not hasattr(request.state, "visitor"):
        request.state.visitor = _visitor(request)
    return request.state.visitor


def forget(request: Request) -> None:
    """Answers as to a stranger: the database cannot be asked who this is."""
    request.state.visitor = None


def _visitor(request: Request) -> Visitor | None:
    secret = session_secret(request)
    if not secret:
        return None
    with glancing(request.app.state.engine) as db:
        return people.visitor(db, secret, request.app.state.clock())


def signed_in(request: Request) -> Visitor:
    """Whoever has a session; 401 for others, 429 for who asks too often."""
    who = visitor(request)
    if who is None:
        raise HTTPException(401)
    limit(request, "asking", str(who.person.id))
    return who


def limit(request: Request, kind: str, who: str | None = None) -> None:
    """Counts a request of this kind by a person or, without one, an address; 429 if too many."""
    who = who or (request.client.host if request.client else "")
    if not request.app.state.rates.allows(kind, who):
        raise HTTPException(429, headers={"Retry-After": "5"})


def administrator(who: Annotated[Visitor, Depends(signed_in)]) -> Visitor:
    if who.person.role != "administrator":
        raise HTTPException(403)
    return who


async def checked_form(request: Request, who: Annotated[Visitor, Depends(signed_in)]) -> FormData:
    """The form's fields, all text, of a form that our own page showed to this very session."""
    form = await _form(request)
    _same_token(form, who.csrf)
    return form


async def open_form(request: Request, who: Annotated[Visitor | None, Depends(visitor)]) -> FormData:
    """The same of anybody: without a session a cookie holds the token that the form repeats."""
    form = await _form(request)
    _same_token(form, who.csrf if who else request.cookies.get(cookie_name(request, "form"), ""))
    return form


def form_token(request: Request) -> str:
    """What a page without a session writes into its forms."""
    return request.cookies.get(cookie_name(request, "form")) or secrets.token_urlsafe(32)


async def _form(request: Request) -> FormData:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise HTTPException(415)
    if declares_too_much(request):
        raise HTTPException(413)
    _same_origin(request)
    try:
        form = await request.form()
    except TooLarge:
        raise HTTPException(413) from None
    except ClientDisconnect:  # nobody reads the answer, and the log need not tell of it
        raise HTTPException(400) from None
    if not all(can_be_kept(str(part)) for item in form.multi_items() for part in item):
        raise HTTPException(400)
    return form


def _same_origin(request: Request) -> None:
    """Browsers say where a form comes from; whatever says nothing still needs the token."""
    site, origin = (request.headers.get(name) for name in ("sec-fetch-site", "origin"))
    if site:
        ours = site in ("same-origin", "none")
    else:
        ours = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not ours:
        raise HTTPException(403, "foreign_form")


def _same_token(form: FormData, token: str) -> None:
    given = str(form.get("csrf", ""))
    if not token or not hmac.compare_digest(given.encode(), token.encode()):
        raise HTTPException(403, "stale_form")


SignedIn = Annotated[Visitor, Depends(signed_in)]
Administrator = Annotated[Visitor, Depends(administrator)]
CheckedForm = Annotated[FormData, Depends(checked_form)]
OpenForm = Annotated[FormData, Depends(open_form)]
