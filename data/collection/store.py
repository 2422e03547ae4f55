"""The database of a collection, opened: SQLite by a path, PostgreSQL by a URL."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.orm import Session


def open_store(url: str) -> Engine:
    """The database at a path (SQLite) or URL, with its tables, which are made if need be.

    Raises InputError if it cannot be opened, or a driver is missing.
    """
    raise NotImplementedError


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that sees one state of the database and changes nothing."""
    raise NotImplementedError


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """One transaction: all of it on disk when the block ends, nothing of it if the block raises."""
    raise NotImplementedError
