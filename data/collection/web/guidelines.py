"""The guidelines that annotators read: every text that ever stood there has a version."""

from functools import cache
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import can_be_kept, handing_out
from glm_jax.data.collection.tables import Guidelines
from glm_jax.data.collection.web.pages import FILES, LANGUAGES
from glm_jax.errors import InputError

NEWEST = select(Guidelines).order_by(Guidelines.version.desc()).limit(1)


def put(db: Session, config: CollectionConfig, now: float) -> None:
    """Makes the configured text the newest version if it never was one; ours if there is none yet.

    A server that starts again, or is a newer one, must not take back what an administrator has
    published since. Raises InputError when the file cannot be read.
    """
    text = _configured(config)
    before = db.scalars(NEWEST).first()
    known = select(Guidelines).where(Guidelines.text == text)
    if before is None or (config.guidelines and db.scalars(known).first() is None):
        publish(db, text, now)


def publish(db: Session, text: str, now: float) -> int:
    """The version of these guidelines (Markdown), a new one if they differ from the last."""
    handing_out(db)
    last = db.scalars(NEWEST).first()
    if last is not None and last.text == text:
        return last.version
    version = 1 + (last.version if last else 0)
    db.add(Guidelines(version=version, text=text, created=now))
    return version


def newest(db: Session) -> Guidelines:
    """What is in force now."""
    return db.scalars(NEWEST).one()


def in_language(text: str, language: str) -> str:
    """Ours in this language alone; a text of the collection's own as it is."""
    return _ours(language) if text == _ours_whole() else text


def _configured(config: CollectionConfig) -> str:
    if not config.guidelines:
        return _ours_whole()
    try:
        text = Path(config.guidelines).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"guidelines: {config.guidelines}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"guidelines: {config.guidelines}: not UTF-8 at byte {error.start}"
        ) from None
    if not text.strip() or not can_be_kept(text):
        raise InputError(
            f"guidelines: {config.guidelines}: expected Markdown, without zero characters"
        )
    return text


def _ours_whole() -> str:
    return "\n\n".join(_ours(language) for language in LANGUAGES)


@cache
def _ours(language: str) -> str:
    return (FILES / "guidelines" / f"{language}.md").read_text(encoding="utf-8").strip()
