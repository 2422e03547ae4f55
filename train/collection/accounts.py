"""People of a collection on the command line: administrators' passwords, annotators' links."""

import getpass
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from glm_jax.data.collection import people, store
from glm_jax.data.collection.tables import Person
from glm_jax.errors import InputError
from glm_jax.train.collection.addresses import address

ADMINISTRATOR = "administrator"
PASSWORD = "GLM_RLHF_PASSWORD"


def existing(db: str) -> Engine:
    """The database that a server has made; InputError if there is none."""
    if "://" not in db and not Path(db).is_file():
        raise InputError(f"{db}: no such database; `glm-rlhf collect serve` makes it")
    return store.open_store(db)


def invite(
    db: str,
    names: Sequence[str],
    *,
    role: str = "annotator",
    url: str = "http://127.0.0.1:8000",
) -> None:
    """Prints a personal link for each name."""
    there, once = address(url), dict.fromkeys(map(people.known_as, names))
    with store.writing(existing(db)) as session:
        links = [(name, people.invite(session, name, role, time.time())) for name in once]
    for name, secret in links:
        print(f"{name}\t{there}/enter/{secret}")


def password(db: str, name: str = ADMINISTRATOR, *, password_file: str | None = None) -> None:
    """Sets the password of an administrator, who is made if the name is new."""
    engine, chosen = existing(db), _password(name, password_file)
    with store.writing(engine) as session:
        _set(session, name, chosen)
    print(f"{name}: the password is set; whoever was signed in as {name} signs in again")


def first_administrator(db: Session, password_file: str | None) -> None:
    """Makes the administrator of a new database."""
    if db.scalar(select(Person.id).where(Person.role == "administrator")) is None:
        _set(db, ADMINISTRATOR, _password(ADMINISTRATOR, password_file))


def _set(db: Session, name: str, chosen: str) -> None:
    named = select(Person).where(Person.name == people.known_as(name))
    person = db.scalars(named).first()
    if person is None:
        people.invite(db, name, "administrator", time.time())
        person = db.scalars(named).one()
    if person.role != "administrator":
        raise InputError(
            f"{name!r} is known already, as {person.role}: passwords are for administrators"
        )
    people.set_password(db, person, chosen)


def _password(name: str, file: str | None) -> str:
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from None
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    if not sys.stdin.isatty():
        raise InputError(
            f"{name!r} needs a password: give one with --password-file FILE, or in the variable "
            f"{PASSWORD}"
        )
    given = getpass.getpass(f"New password of {name!r}: ")
    if getpass.getpass("Once more: ") != given:
        raise InputError("the two passwords differ; start again")
    return given
