"""New databases: of SQLite in a folder, or of a PostgreSQL server of one's own for a while."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "collection"
STARTS = 30.0  # seconds that it may take


def programs() -> Path | None:
    """The folder of initdb and postgres, where Debian puts them or on the path."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def cluster(*more: str) -> Iterator[Callable[[str], str]]:
    """Makes the address of a new database of a name; RuntimeError without PostgreSQL.

    It listens at a socket in its own folder, and is gone with it. Root runs it as another user,
    since PostgreSQL will not be run by root.
    """
    found = programs()
    if found is None:
        raise RuntimeError("PostgreSQL is not installed: Debian's package is postgresql")
    with tempfile.TemporaryDirectory() as folder:
        account = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        made = [found / "initdb", "-D", f"{folder}/data", "-A", "trust", "-U", USER, "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **account)
        options = ["-c", "listen_addresses=", "-c", "max_connections=200", *more]
        server = subprocess.Popen(
            [found / "postgres", "-D", f"{folder}/data", "-k", folder, *options],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **account,
        )  # fmt: skip
        try:
            yield lambda name: _database(folder, name)
        finally:
            server.send_signal(signal.SIGINT)  # "fast": it does not wait for open connections
            server.wait()


@contextmanager
def databases(folder: Path, postgresql: bool) -> Iterator[Callable[[str], str]]:
    """Makes the address of a new database of a name."""
    if postgresql:
        with cluster() as made:
            yield made
    else:
        yield lambda name: str(folder / f"{name}.db")


def _database(folder: str, name: str) -> str:
    import psycopg

    address = f"postgresql://{USER}@/{{}}?host={folder}"
    until = time.monotonic() + STARTS
    while True:
        try:
            with psycopg.connect(address.format("postgres"), autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            return address.format(name)
        except psycopg.OperationalError:  # it has not started yet
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
