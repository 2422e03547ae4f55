"""What the server says when it will not or cannot do what it was asked."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from glm_jax.data.collection import Refused
from glm_jax.data.collection.web import pages, security

log = logging.getLogger(__name__)


def wants_json(request: Request) -> bool:
    """Our script asks so; whoever sends a form by hand gets pages."""
    return "application/json" in request.headers.get("accept", "")


def done(request: Request, there: str = "/") -> Response:
    """What was asked is done and safely stored."""
    return JSONResponse({"ok": True}) if wants_json(request) else RedirectResponse(there, 303)


def problem(
    request: Request,
    status: int,
    key: str = "",
    *,
    said: str = "",
    headers: dict[str, str] | None = None,
) -> Response:
    """A clear answer: what is `said`, or else what the texts' `errors` have for `key` or status."""
    errors = pages.texts(pages.language(request))["errors"]
    said = said or errors.get(key) or errors[str(status)]
    if wants_json(request):
        response: Response = JSONResponse({"error": said}, status)
    elif status == 401:
        response = pages.render(request, "login.html.j2", status, wrong=None)
    else:
        refused = [errors["nothing"]] if request.method == "POST" and status < 500 else []
        response = pages.notice(
            request, errors["heading"], said, *refused, status=status, back=True
        )
    response.headers.update(headers or {})
    return response


def answer_for(app: FastAPI) -> None:
    """Lets `app` answer every failure with a page, or with JSON for the script."""

    @app.exception_handler(HTTPException)
    def _refused(request: Request, error: HTTPException) -> Response:
        known = pages.texts("en")["errors"]
        status = error.status_code if str(error.status_code) in known else 400
        return problem(request, status, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Refused)
    def _wrong(request: Request, error: Refused) -> Response:
        told = pages.texts(pages.language(request))["refused"].get(error.message)
        english = f"{str(error)[:1].upper()}{str(error)[1:]}."
        return problem(request, 409, said=told.format(**error.values) if told else english)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        return problem(request, 422)

    @app.exception_handler(OperationalError)
    def _busy(request: Request, error: OperationalError) -> Response:
        log.warning("database: %s", error.orig)
        security.forget(request)
        return problem(request, 503, headers={"Retry-After": "1"})

    @app.exception_handler(Exception)
    def _failed(request: Request, error: Exception) -> Response:
        security.forget(request)
        return problem(request, 500)
