"""The commands `glm-rlhf collect ...`: from prompts with answers to people's preferences."""

import argparse
import importlib
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import Any

from glm_jax.errors import InputError
from glm_jax.train.commands import Command, later

Options = Callable[[Any, Iterable[str]], None]


def add(command: Command, options: Options) -> None:
    """Adds the commands; `options` adds those of sampling."""
    for name, (place, text, arguments) in COMMANDS.items():
        found = command(name, _installed(later(f"collection.{place}")), text)
        arguments(found)
        if name == "serve":
            _live(found, options)


def _serve(found: argparse.ArgumentParser) -> None:
    found.add_argument(
        "pairs", metavar="PAIRS", nargs="?",
        help="samples, or pairs in any layout; those that are there already change nothing",
    )  # fmt: skip
    _db(found, ", made if it is not there,")
    found.add_argument("--config", metavar="FILE", help="YAML: what is asked, and of how many")
    found.add_argument(
        "--practice", metavar="FILE", help="pairs with known answers, that come first"
    )
    found.add_argument("--gold", metavar="FILE", help="pairs with known answers, mixed in")
    found.add_argument("--host", help="address to listen at; 127.0.0.1 unless given")
    found.add_argument("--port", type=int, help="8000 unless given")
    _url(found, "where the administrator's browser does")
    found.add_argument(
        "--behind-tls",
        action="store_true",
        help="a proxy in front speaks TLS: cookies travel over it only",
    )
    _password_file(found, "of the administrator, at the first start; ")


def _live(found: argparse.ArgumentParser, options: Options) -> None:
    live = found.add_argument_group("answers sampled while people work")
    live.add_argument("--model", metavar="MODEL", help="folder of a trained model")
    live.add_argument("--prompts", metavar="FILE", help="that it answers")
    live.add_argument("--n", type=int, help="answers to each prompt; 2 unless given")
    live.add_argument("--max-prompt", type=int, help="longer prompts are cut from the left")
    options(live, ("max_new_tokens", "temperature", "top_p"))


def _invite(found: argparse.ArgumentParser) -> None:
    _db(found)
    found.add_argument("names", metavar="NAME", nargs="+", help="of people, or their initials")
    found.add_argument(
        "--role",
        choices=("annotator", "senior"),
        help="seniors decide where annotators have no majority; annotator unless given",
    )
    _url(found, "http://127.0.0.1:8000")


def _password(found: argparse.ArgumentParser) -> None:
    _db(found)
    found.add_argument(
        "name", metavar="NAME", nargs="?", help="made if new; `administrator` unless given"
    )
    _password_file(found, "")


def _export(found: argparse.ArgumentParser) -> None:
    _db(found)
    found.add_argument("--output", required=True, metavar="FILE")
    found.add_argument(
        "--kind", metavar="KIND",
        help="aggregated (one row a pair with its votes, unless given), raw (one row a judgement), "
        "argilla, labelstudio, gold, repeats, prompts (with their quality), daily (CSV)",
    )  # fmt: skip


def _statistics(found: argparse.ArgumentParser) -> None:
    _db(found)
    found.add_argument("--json", action="store_true", help="one object on one line")


def _simulate(found: argparse.ArgumentParser) -> None:
    found.add_argument("samples", metavar="SAMPLES", help="what is served, with its tasks")
    found.add_argument(
        "--links", required=True, metavar="FILE", help="what `invite` printed: an annotator a line"
    )
    found.add_argument("--pairs", type=int, metavar="N", help="of each annotator; all unless given")
    found.add_argument("--pace", type=float, metavar="SECONDS", help="a pair; 0 unless given")
    found.add_argument(
        "--length-bias", type=float, help="utility a word, in the eyes of annotators on average"
    )
    found.add_argument("--noise", type=float, help="of the difference that an annotator sees")
    found.add_argument("--tie", type=float, help="a smaller difference is none")
    found.add_argument("--seed", type=int, help="of the annotators and of their noise")


def _db(found: argparse.ArgumentParser, made: str = "") -> None:
    found.add_argument(
        "--db", required=True, metavar="DB",
        help=f"an SQLite file{made} or an existing PostgreSQL database, postgresql://...",
    )  # fmt: skip


def _password_file(found: argparse.ArgumentParser, whose: str) -> None:
    found.add_argument(
        "--password-file", metavar="FILE",
        help=f"{whose}without it the variable GLM_RLHF_PASSWORD counts, or it is asked for",
    )  # fmt: skip


def _url(found: argparse.ArgumentParser, otherwise: str) -> None:
    found.add_argument(
        "--url", metavar="URL",
        help=f"where people reach the server, for personal links; {otherwise} unless given",
    )  # fmt: skip


def _installed(run: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """Runs it; InputError if the extra `collect` is missing, or the database does not answer."""

    def checked(arguments: Namespace) -> None:
        for name in ("argon2", "fastapi", "httpx", "limits", "nh3", "sqlalchemy", "uvicorn"):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                raise InputError(f"{name} is missing: pip install 'glm-rlhf[collect]'") from None
        from sqlalchemy.exc import OperationalError

        try:
            run(arguments)
        except OperationalError as error:
            reason = str(error.orig).splitlines()[0]
            raise InputError(
                f"the database does not answer ({reason}); if another program is writing, try again"
            ) from None

    return checked


COMMANDS = {
    "serve": ("serving.serve", "people compare answers in their browsers", _serve),
    "invite": ("accounts.invite", "personal links, each shown once", _invite),
    "password": (
        "accounts.password",
        "a password of an administrator, new or forgotten",
        _password,
    ),
    "export": ("labels.export", "the labels as a file", _export),
    "statistics": ("labels.statistics", "agreement, speed and biases", _statistics),
    "simulate": (
        "labels.simulate",
        "annotators of the proving ground label at a running server",
        _simulate,
    ),
}
