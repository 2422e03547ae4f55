"""People: how they are invited, sign in, pause. Of secrets only hashes are kept."""

import hashlib
import secrets
import unicodedata
from functools import cache
from typing import NamedTuple, get_args

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from glm_jax.data.collection import Refused
from glm_jax.data.collection.labelling.places import recount
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import handing_out, locked
from glm_jax.data.collection.tables import Assignment, Change, Login, Pair, Person, Role
from glm_jax.errors import InputError

HOURS = CollectionConfig.session_hours
LONGEST_NAME = 64  # characters
VISITOR = (
    select(Person, Login.csrf)
    .join(Login, Login.person_id == Person.id)
    .where(Login.id == bindparam("login"), Login.expires > bindparam("now"))
)
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1000


def known_as(name: str) -> str:
    """The name as it is kept: what looks the same is the same person."""
    return unicodedata.normalize("NFKC", name).strip()


def invite(db: Session, name: str, role: Role, now: float, by: Person | None = None) -> str:
    """The secret of a new personal link, which is not kept; it works until the next invitation.

    Who is known by this name already gets a new link, and is signed out everywhere; an annotator
    can be made a senior, whose votes then decide where there is no majority. Raises Refused for an
    empty or long name, or another role than the person has.
    """
    name = known_as(name)
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise Refused(
            "a name has 1 to {longest} characters in one line, got {name!r}",
            longest=LONGEST_NAME, name=name,
        )  # fmt: skip
    if role not in get_args(Role):
        raise InputError(f"unknown role {role!r}; there are {', '.join(get_args(Role))}")
    person = db.scalars(select(Person).where(Person.name == name)).first()
    if person is None:
        person = Person(name=name, role=role, state="practising", created=now)
        db.add(person)
    if (person.role, role) == ("annotator", "senior"):
        _promote(db, person)
    if person.role != role:
        raise Refused(
            "{name!r} is known already, as {known}, not as {role}",
            name=name, known=person.role, role=role,
        )  # fmt: skip
    secret = secrets.token_urlsafe(32)
    person.link = _hash(secret)
    db.flush()
    db.execute(delete(Login).where(Login.person_id == person.id))
    _record(db, "invited", person, by, now, role=role)
    return secret


def enter(db: Session, secret: str, now: float, *, hours: float = HOURS) -> str:
    """Signs in by a personal link: the secret for the cookie. Raises Refused for any other.

    The link of an administrator works until there is a password.
    """
    person = db.scalars(select(Person).where(Person.link == _hash(secret))).first()
    if person is None or (person.role == "administrator" and person.password is not None):
        raise Refused("this link is not valid, or not any more: ask for a new one")
    return _login(db, person, now, hours)


def verified(db: Session, name: str, password: str) -> Person:
    """Whose name and password these are. Raises Refused for others, in the same time.

    That is slow so that guessing is; call it in `reading`, where nobody waits for it.
    """
    person = db.scalars(select(Person).where(Person.name == known_as(name))).first()
    kept = person.password if person is not None else None
    try:
        _hasher().verify(kept or _nobodys(), password[:LONGEST_PASSWORD])
    except VerificationError:
        kept = None
    if person is None or kept is None:
        raise Refused("name or password is wrong")
    return person


def sign_in(db: Session, who: Person, now: float, *, hours: float = HOURS) -> str:
    """Signs in who was `verified`: the secret for the cookie.

    Raises Refused if the password has been changed since.
    """
    known = who.password
    person = locked(db, who)
    if person.password != known:
        raise Refused("name or password is wrong")
    return _login(db, person, now, hours)


class Visitor(NamedTuple):
    """Who is signed in."""

    person: Person
    csrf: str
    "what the forms of this session hold, and nobody else knows"


def visitor(db: Session, secret: str, now: float) -> Visitor | None:
    """Whose cookie this is, unless it has expired."""
    found = db.execute(VISITOR, {"login": _hash(secret), "now": now}).first()
    return Visitor(*found) if found else None


def sign_out(db: Session, secret: str) -> None:
    """Ends the session of a cookie, if there is one."""
    db.execute(delete(Login).where(Login.id == _hash(secret)))


def set_password(db: Session, person: Person, password: str) -> None:
    """All sessions of the person end. Raises InputError for a short or an endless one."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InputError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    locked(db, person).password = _hasher().hash(password)
    db.execute(delete(Login).where(Login.person_id == person.id))


def pause(db: Session, person: Person, by: Person | None, now: float) -> None:
    """The person gets no more pairs and judges none until `resume`."""
    person = locked(db, person)
    if person.state != "paused":
        _record(db, "paused", person, by, now, state=person.state)
        person.state = "paused"


def resume(db: Session, person: Person, by: Person | None, now: float) -> None:
    """The person goes on where it was paused; who failed the practice round is let in."""
    person = locked(db, person)
    before = "active"
    if person.state == "paused":
        paused = select(Change).where(Change.person_id == person.id, Change.kind == "paused")
        last = db.scalars(paused.order_by(Change.id.desc()).limit(1)).one()
        before = last.about["state"]
    if person.state in ("paused", "failed"):
        person.state = before
        _record(db, "resumed", person, by, now, state=before)


def _promote(db: Session, person: Person) -> None:
    handing_out(db)
    person = locked(db, person)
    person.role = "senior"
    waiting = select(Assignment.pair_id).join(Pair).where(Pair.queue == "senior")
    recount(db, db.scalars(waiting.where(Assignment.person_id == person.id)).all())


def _login(db: Session, person: Person, now: float, hours: float) -> str:
    db.execute(delete(Login).where(Login.expires <= now))
    secret = secrets.token_urlsafe(32)
    db.add(
        Login(
            id=_hash(secret),
            person_id=person.id,
            csrf=secrets.token_urlsafe(32),
            created=now,
            expires=now + 3600 * hours,
        )
    )
    return secret


def _record(
    db: Session, kind: str, person: Person, by: Person | None, now: float, **about: str
) -> None:
    by_id = by.id if by is not None else None
    db.add(Change(kind=kind, person_id=person.id, by_id=by_id, about=about, created=now))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _nobodys() -> str:
    """What the password of a name that nobody has is compared with: that takes as long."""
    return _hasher().hash(secrets.token_urlsafe(32))
