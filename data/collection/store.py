"""The database of a collection, opened: SQLite by a path, PostgreSQL by a URL.

Who writes takes locks in one order, so that no two wait for each other: on SQLite there is one
writer at a time; on PostgreSQL the lock of `handing_out`, then a person (`locked`), then that
person's assignment, then its pair.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session

from glm_jax.data.collection.tables import Person, Table
from glm_jax.errors import InputError

SQLITE = {
    "reading": ("BEGIN",),
    "glancing": (),
    "writing": ("PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE"),
    "flushed": ("PRAGMA synchronous = FULL", "BEGIN IMMEDIATE"),
}
POSTGRESQL = {
    "reading": ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",),
    "glancing": (),
    "writing": ("BEGIN; SET LOCAL synchronous_commit = off",),
    "flushed": ("BEGIN",),
}
PRAGMAS = (
    "busy_timeout = 30000",  # milliseconds that another process may write
    "journal_mode = WAL",
    "foreign_keys = ON",
)
HANDING_OUT = 0x676C6D  # the number of our advisory lock


def open_store(url: str) -> Engine:
    """The database at a path (SQLite) or URL, with its tables, which are made if need be.

    Raises InputError if it cannot be opened, or a driver is missing.
    """
    try:
        place = make_url(url) if "://" in url else URL.create("sqlite", database=url)
        engine = OPENED[place.get_backend_name()](place)
        with reading(engine) as db:
            known = inspect(db.connection()).get_table_names()
        if not set(Table.metadata.tables) <= set(known):
            with writing(engine) as db:
                handing_out(db)
                Table.metadata.create_all(db.connection())
    except ModuleNotFoundError as error:
        raise InputError(
            f"the database needs {error.name}: pip install 'glm-rlhf[collect]'"
        ) from None
    except (exc.SQLAlchemyError, KeyError) as error:
        shown = url if "://" not in url else url.partition("://")[0] + "://..."  # no passwords
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(
            f"{shown}: cannot be opened as a database ({reason}); expected a path for SQLite, or "
            "postgresql://user:password@host/name"
        ) from None
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session to look things up, all as they are at one moment."""
    with _begin(engine, "reading") as db:
        yield db


@contextmanager
def glancing(engine: Engine) -> Iterator[Session]:
    """A session for a single statement, which needs no transaction around it."""
    with _begin(engine, "glancing") as db:
        yield db


@contextmanager
def writing(engine: Engine, *, flushed: bool = True) -> Iterator[Session]:
    """One transaction: all of it is kept when the block ends, nothing of it if the block raises.

    What is kept outlives a crash of the program; if `flushed`, of the machine, too. That takes
    milliseconds of the disk's time, which `next_assignment` need not wait for: its loss in a power
    failure would cost one page. What was read can still be looked at afterwards.
    """
    # Threads of one process queue here: SQLite lets those that wait sleep, up to 100 ms too long,
    # and on PostgreSQL one that holds locks would wait for Python's own among all the others.
    turn = engine.get_execution_options()["writer"]
    with turn, _begin(engine, "flushed" if flushed else "writing") as db:
        yield db


def handing_out(db: Session) -> None:
    """Waits until nobody else hands pairs out or takes them back, and holds that until the end."""
    if db.get_bind().dialect.name == "postgresql":
        db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": HANDING_OUT})


def locked(db: Session, person: Person) -> Person:
    """The person as it is now, who does nothing else until the end of the transaction."""
    return fresh(db, Person, person.id)


def fresh(db: Session, table: type[Any], key: Any) -> Any:
    """A row as it is now, or None, locked until the end of the transaction."""
    # With its key shared, rows that refer to this one can be added meanwhile.
    return db.get(table, key, populate_existing=True, with_for_update={"key_share": True})


def analysed(db: Session) -> None:
    """Tells the planner of PostgreSQL how many rows there are, which it takes minutes to see."""
    if db.get_bind().dialect.name == "postgresql":
        db.execute(text("ANALYZE"))


def can_be_kept(text: str) -> bool:
    """Whether the databases can hold a text: it has no NUL and no lone surrogate."""
    return re.search("[\0\ud800-\udfff]", text) is None


@contextmanager
def _begin(engine: Engine, purpose: str) -> Iterator[Session]:
    bound = engine.execution_options(purpose=purpose)
    with Session(bound, expire_on_commit=False) as db, db.begin():
        yield db


def _sqlite(place: URL) -> Engine:
    engine = _engine(place, SQLITE)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions by itself
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _postgresql(place: URL) -> Engine:
    if place.drivername in ("postgres", "postgresql"):
        place = place.set(drivername="postgresql+psycopg")
    engine = _engine(place, POSTGRESQL)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.autocommit = True  # the driver begins no transactions by itself

    return engine


def _engine(place: URL, begins: dict[str, tuple[str, ...]]) -> Engine:
    """An engine whose transactions begin as their purpose says."""
    engine = create_engine(
        place, pool_size=16, max_overflow=64, execution_options={"writer": threading.Lock()}
    )

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        for statement in begins[connection.get_execution_options().get("purpose", "flushed")]:
            connection.exec_driver_sql(statement)

    return engine


OPENED = {"sqlite": _sqlite, "postgres": _postgresql, "postgresql": _postgresql}
