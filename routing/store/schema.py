"""The revision of the tables: which one the database has, which one this code needs, and the way from one to the other.

Alembic's revisions are shipped in `routing.store.migrations`; nobody needs an `alembic.ini`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from dispatcher.attempts import db_timeouts
from routing.store import database, rows, store_errors

logging.getLogger("alembic").setLevel(logging.WARNING)  # its INFO lines are of no use to anybody

UPGRADE_LOCK = 7_263_990  # any number: PostgreSQL's advisory lock that upgrades of this program share


def check(db: database.Database) -> rows.SchemaCheck:
    """Compare the database's revision with this code's."""
    script = _script()
    wanted = str(script.get_current_head())
    # A look must not create the file.
    if not db.exists():
        return rows.SchemaCheck(current=None, wanted=wanted, ok=False, message=_empty(db))
    with db.read() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return _judge(db, script, current=current, wanted=wanted)


def upgrade(db: database.Database) -> None:
    """Migrate to this code's revision, one process at a time. Raises SchemaError for a newer database."""
    db.make_folder()
    # Without the usual bounds of a statement and a lock: a migration of large tables takes as long as it takes.
    with db.write() as connection, db_timeouts.patience(connection), _alone(connection):
        script = _script()
        # Read under the lock: whoever waited for another upgrade finds the work done.
        current = MigrationContext.configure(connection).get_current_revision()
        found = _judge(db, script, current=current, wanted=str(script.get_current_head()))
        if found.ok:
            return
        if current is not None and current not in _known(script):
            raise store_errors.SchemaError(found.message)
        config = _config()
        # Our connection, so that the migration runs under the lock and in this transaction (`migrations/env.py`).
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _judge(db: database.Database, script: ScriptDirectory, *, current: str | None, wanted: str) -> rows.SchemaCheck:
    if current == wanted:
        message = f"{db.address} has revision {wanted}, as this version needs it"
    elif current is None:
        message = _empty(db)
    elif current in _known(script):
        message = f"{db.address} has revision {current}, this version needs {wanted}: run `podyard db upgrade`"
    else:
        message = (
            f"{db.address} has revision {current}, which this version (up to {wanted}) does not know: "
            "it belongs to a newer Podyard; install that version, or use another database"
        )
    return rows.SchemaCheck(current=current, wanted=wanted, ok=current == wanted, message=message)


def _empty(db: database.Database) -> str:
    return f"{db.address} has no tables of Podyard yet: run `podyard db upgrade`"


def _known(script: ScriptDirectory) -> set[str]:
    return {revision.revision for revision in script.walk_revisions()}


def _config() -> Config:
    config = Config()
    # Alembic's configuration is a ConfigParser, to which a percent sign is an interpolation.
    config.set_main_option("script_location", str(resources.files("routing.store.migrations")).replace("%", "%%"))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@contextmanager
def _alone(connection: sa.Connection) -> Iterator[None]:
    """Keep other upgrades out: SQLite's writing transaction does it by itself, PostgreSQL by an advisory lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
    yield
