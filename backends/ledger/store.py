"""The ledger's file: SQLite in WAL mode, readable by its owner alone, and one sentence for each way it can fail.

A connection is opened for each transaction and closed after it, so that nothing live is shared between threads, forked
children and copies; a commit is on the disk before it returns (``synchronous = FULL``).
"""

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

PATH_VARIABLE = "QLM_LEDGER"
"""Environment variable that holds the ledger's path."""
APPLICATION_ID = 0x716C6D6A
"""Tells a ledger from other SQLite files."""
_PATIENCE = 10.0
"""Seconds to wait for another process's transaction."""
_INDEX_BLOCK = 32 * 1024
"""Bytes by which the index of the write-ahead log grows."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            tag TEXT PRIMARY KEY, content TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL,
            run TEXT NOT NULL, paid INTEGER NOT NULL, estimate REAL NOT NULL, cap INTEGER NOT NULL, used REAL,
            remote_id TEXT, reason TEXT, created REAL NOT NULL, changed REAL NOT NULL,
            sent_boot TEXT, sent_steady REAL, lookups INTEGER NOT NULL DEFAULT 0, result BLOB
        ) STRICT""",
        "CREATE INDEX jobs_by_content ON jobs (content)",
        "CREATE INDEX jobs_by_run ON jobs (run)",
        "CREATE INDEX jobs_by_state ON jobs (state)",
        "CREATE TABLE changes (tag TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL, reason TEXT) STRICT",
        "CREATE INDEX changes_by_tag ON changes (tag)",
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    ),
    (  # each sending is charged for itself, in the month in which it went out; sessions are charged for their time
        """CREATE TABLE sendings (
            tag TEXT NOT NULL, at REAL NOT NULL, session TEXT, remote_id TEXT, used REAL
        ) STRICT""",
        "CREATE INDEX sendings_by_tag ON sendings (tag)",
        """INSERT INTO sendings
            SELECT tag, coalesce((SELECT max(at) FROM changes WHERE changes.tag = jobs.tag AND state = 'uncertain'),
                                 created), NULL, remote_id, used
            FROM jobs WHERE sent_boot IS NOT NULL AND state <> 'queued'""",
        "ALTER TABLE jobs DROP COLUMN used",
        """CREATE TABLE sessions (
            name TEXT PRIMARY KEY, mode TEXT NOT NULL, device TEXT NOT NULL, run TEXT NOT NULL, state TEXT NOT NULL,
            longest INTEGER NOT NULL, owner TEXT NOT NULL, opened REAL NOT NULL, remote_id TEXT, used REAL, reason TEXT
        ) STRICT""",
        "CREATE INDEX sessions_by_run ON sessions (run)",
        """CREATE VIEW charges AS
            SELECT jobs.tag, jobs.run, jobs.paid, sendings.at, CASE
                WHEN sendings.session IS NOT NULL THEN 0
                WHEN sendings.used IS NOT NULL THEN sendings.used
                WHEN jobs.paid OR jobs.state NOT IN ('done', 'failed', 'cancelled') THEN jobs.cap
                ELSE jobs.estimate END AS seconds
            FROM sendings JOIN jobs USING (tag)
            UNION ALL SELECT tag, run, paid, NULL, cap FROM jobs WHERE state = 'queued'
            UNION ALL SELECT name, run, 1, opened, coalesce(used, longest) FROM sessions WHERE mode = 'session'""",
    ),
)
"""Statements that lead from each version of the schema to the next; ``user_version`` counts those done."""


class LedgerError(ValueError):
    """The ledger's file cannot be used; the message is one sentence with a remedy.

    >>> issubclass(LedgerError, ValueError)
    True
    """


def default_path() -> Path:
    """Return where the ledger lies: ``QLM_LEDGER``, or ``hybridqlm/ledger.sqlite3`` in the user's state folder (XDG).

    >>> default_path().suffix != ""
    True
    """
    named = os.environ.get(PATH_VARIABLE)
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "hybridqlm" / "ledger.sqlite3"


def prepare(path: Path) -> None:
    """Create the file (mode 0600 from its first moment) or check the one that is there, and bring it up to date.

    Raises LedgerError for a file that is damaged, of another kind, of a newer version, open to other users, or that
    cannot be read or written.
    """
    with explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise LedgerError(f"the ledger expects to be its owner's alone, got mode {mode:o}; run: chmod 600 {path}")
        with transaction(path) as connection:
            _migrate(connection, path)
        with closing(_connect(path)) as connection:
            _use_wal(connection)
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict)


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file for one transaction, which is durable when the block ends and undone when it raises."""
    with explained(path), closing(_connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # SQLite undoes some failures, such as a full disk, by itself
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file to look at one moment of it."""
    with explained(path), closing(_connect(path)) as connection:
        connection.execute("BEGIN")
        yield connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into LedgerError."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, path) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(path) from error
        raise LedgerError(
            f"the ledger expects a file that it can read and write, got '{error.strerror}' for {path}; name another "
            f"place in {PATH_VARIABLE}."
        ) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (kind,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and kind != APPLICATION_ID:
        raise LedgerError(
            f"a ledger expects a file of its own, got another program's database in {path}; name another."
        )
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"this version reads ledgers up to version {len(MIGRATIONS)}, got version {version} in {path}; upgrade "
            "hybridqlm."
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    if version < len(MIGRATIONS):
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Change the journal's mode; while another process is doing so the file is locked for a moment."""
    deadline = time.monotonic() + _PATIENCE
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _explain(error: sqlite3.Error, path: Path) -> LedgerError:
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerError(
            f"the ledger expects its file to be free within {_PATIENCE:.0f} seconds, got one that stays locked; end "
            f"the process that keeps {path} open."
        )
    if code == sqlite3.SQLITE_FULL:
        return _full(path)
    if code == sqlite3.SQLITE_IOERR:
        return _failed_io(error, path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return LedgerError(
            f"the ledger expects a file that it can read and write, got '{error}' for {path}; name another place in "
            f"{PATH_VARIABLE}."
        )
    return LedgerError(f"the ledger expects no failure of its file, got '{error}' for {path}; look at the error above.")


def _full(path: Path) -> LedgerError:
    return LedgerError(
        f"the ledger expects room to write, got a full disk at {path}; free some, then run: qlm jobs resume"
    )


def _failed_io(error: sqlite3.Error, path: Path) -> LedgerError:
    """SQLite calls every failure to read or write but ENOSPC in a write an I/O error: say which, and what is known."""
    free = _free(path)
    if free is not None and free < _INDEX_BLOCK:  # no room to grow the write-ahead log's index is reported like this
        return _full(path)
    known = [error.sqlite_errorname]
    if free is not None:
        known.append(f"{free:,} bytes are free there")
    largest = _largest_file()
    if largest is not None:
        known.append(f"this process may write files of at most {largest:,} bytes (ulimit -f)")
    return LedgerError(
        f"the ledger expects to read and write its file, got '{error}' for {path} ({'; '.join(known)}); look at "
        "quotas, limits and the disk itself, then run: qlm jobs resume"
    )


def _free(path: Path) -> int | None:
    """Bytes that may still be written beside the file; None where the system does not tell."""
    try:
        found = os.statvfs(path.parent)
    except (OSError, AttributeError):
        return None
    return found.f_bavail * found.f_frsize


def _largest_file() -> int | None:
    """How large a file of this process may become; None for no limit, and where there are none."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


def _damaged(path: Path, verdict: str) -> LedgerError:
    return LedgerError(
        f"the ledger expects a sound file, got a damaged one at {path} ({verdict.splitlines()[0]}); restore a copy, or "
        "move it away and look for jobs tagged hybridqlm on the platform before sending anything again."
    )
