"""People: how they are invited, sign in, pause. Of secrets only hashes are kept."""

from sqlalchemy.orm import Session

from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Login, Person, Role

HOURS = CollectionConfig.session_hours


def invite(db: Session, name: str, role: Role, now: float, by: Person | None = None) -> str:
    """The secret of a new personal link, which is not kept; it works until the next invitation.

    Who is known by this name already gets a new link, and is signed out everywhere. Raises
    InputError for an empty or long name, or a role other than the person has.
    """
    raise NotImplementedError


def enter(db: Session, secret: str, now: float, *, hours: float = HOURS) -> str:
    """Signs in by a personal link: the secret for the cookie. Raises Refused for any other.

    The link of an administrator works until there is a password.
    """
    raise NotImplementedError


def sign_in(db: Session, name: str, password: str, now: float, *, hours: float = HOURS) -> str:
    """Signs in by password: the secret for the cookie. Raises Refused, in the same time."""
    raise NotImplementedError


def login_of(db: Session, secret: str, now: float) -> Login | None:
    """The session of a cookie, with its `csrf`, unless it has expired."""
    raise NotImplementedError


def person_of(db: Session, secret: str, now: float) -> Person | None:
    """Whose cookie this is, unless it has expired."""
    raise NotImplementedError


def sign_out(db: Session, secret: str) -> None:
    """Ends the session of a cookie, if there is one."""
    raise NotImplementedError


def set_password(db: Session, person: Person, password: str) -> None:
    """Raises InputError for one of fewer than 12 characters. All sessions of the person end."""
    raise NotImplementedError


def pause(db: Session, person: Person, by: Person | None, now: float) -> None:
    """The person gets no more pairs and judges none until `resume`."""
    raise NotImplementedError


def resume(db: Session, person: Person, by: Person | None, now: float) -> None:
    """The person goes on where it was paused; who failed the practice round is let in."""
    raise NotImplementedError
