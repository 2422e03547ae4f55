"""Pages from templates, in the language of whoever reads them."""

import hashlib
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import yaml
from starlette.requests import Request
from starlette.responses import HTMLResponse

from glm_jax.data.collection.web import markdown, security
from glm_jax.data.numbers import count, duration, moment, number, percent

LANGUAGES = ("en", "zh")
HOURS = 24 * 365  # that a language chosen without a session is remembered, and a form stays good
FILES = resources.files(__package__)


@cache
def texts(language: str) -> dict[str, Any]:
    """What the pages say in this language."""
    text = (FILES / "texts" / f"{language}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@cache
def static(name: str) -> str:
    """The address of a style sheet or script, which changes when its content does."""
    content = (FILES / "static" / name).read_bytes()
    return f"/static/{name}?{hashlib.sha256(content).hexdigest()[:12]}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["markdown"] = markdown.render
    environment.filters |= {f.__name__: f for f in (count, duration, moment, number, percent)}
    environment.globals |= {"static": static, "alike": markdown.render_alike}
    return environment


def language(request: Request) -> str:
    """The person's choice; without one the browser's cookie, then the collection's setting."""
    who = security.visitor(request)
    cookie = request.cookies.get(security.cookie_name(request, "language"))
    chosen = (who and who.person.language) or cookie
    return chosen if chosen in LANGUAGES else request.app.state.config.language


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page. Templates know `t` (the texts), `who` (or None) and `csrf` (for their forms)."""
    who = security.visitor(request)
    code = language(request)
    csrf = who.csrf if who else security.form_token(request)
    page = _environment().get_template(template)
    response = HTMLResponse(
        page.render(
            t=texts(code),
            language=code,
            who=who,
            csrf=csrf,
            collection=request.app.state.config.title,
            **values,
        ),
        status,
    )
    if not who:
        security.put_cookie(request, response, "form", csrf, HOURS)
    return response


def notice(
    request: Request, heading: str, *paragraphs: str, status: int = 200, **values: Any
) -> HTMLResponse:
    """A page that only says something."""
    values = {"again": None, "back": False, "last": None} | values
    return render(
        request, "notice.html.j2", status, heading=heading, paragraphs=paragraphs, **values
    )
