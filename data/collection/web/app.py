"""The web application of a collection."""

import time
from collections.abc import Callable

from fastapi import FastAPI, Request
from sqlalchemy import Engine, text
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import glancing, writing
from glm_jax.data.collection.web import admin, annotate, entering, guidelines, pages
from glm_jax.data.collection.web.envelope import Envelope
from glm_jax.data.collection.web.latest import LatestFigures
from glm_jax.data.collection.web.live import LiveSampling, Sampler
from glm_jax.data.collection.web.problems import answer_for
from glm_jax.data.collection.web.rates import Rates


def create_app(
    engine: Engine,
    config: CollectionConfig,
    *,
    sampler: Sampler | None = None,
    url: str | None = None,
    secure: bool = False,
    clock: Callable[[], float] = time.time,
) -> ASGIApp:
    """The application over an open store.

    `sampler` makes more pairs when annotators run out of them. `url`: where browsers reach the
    server, for personal links; without it, what a request says of that. `secure`: they reach it by
    TLS, and only so. `clock`: seconds since 1970. Raises InputError for guidelines that cannot be
    read.
    """
    with writing(engine) as db:
        guidelines.put(db, config, clock())
    app = FastAPI(
        title=config.title, docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False,  # which would lead to whatever host a request names
    )  # fmt: skip
    app.state.engine, app.state.config = engine, config
    app.state.url, app.state.secure, app.state.clock = url, secure, clock
    app.state.rates = Rates()
    app.state.figures = LatestFigures()
    app.state.live = LiveSampling(sampler, engine, config) if sampler else None
    app.include_router(annotate.routes)
    app.include_router(entering.routes)
    app.include_router(admin.routes)
    app.add_api_route("/health", _health, methods=["GET", "HEAD"])
    app.mount("/static", _Static(directory=str(pages.FILES / "static")))
    answer_for(app)
    return Envelope(app, secure)  # around the answers to our own mistakes, too


def _health(request: Request) -> Response:
    """For whatever watches over the server: it runs, and its database answers."""
    with glancing(request.app.state.engine) as db:
        db.execute(text("SELECT 1"))
        return PlainTextResponse("ok")


class _Static(StaticFiles):
    """Files whose address changes with their content, so that browsers may keep them."""

    def file_response(self, *args: object, **values: object) -> Response:
        response = super().file_response(*args, **values)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response
