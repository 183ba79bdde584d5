"""`podyard db`: the tables of the record."""

import click

from dispatcher.manifests import redaction
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, app_option, common_options, pass_session
from routing.store import Store


@click.group()
def db() -> None:
    """The database: SQLite on one machine, PostgreSQL for more. The setting database.url names it."""


@db.command()
@app_option
@common_options
@pass_session
def upgrade(session: Session) -> None:
    """Make the tables, or bring them to this version. Safe to run again, also by several processes at once.

    \b
    Example:  podyard db upgrade
              PODYARD_DATABASE__URL=postgresql://user:password@host/podyard podyard db upgrade
              podyard db upgrade --app shop:app
    """
    session.require_database()
    _make_folder(session)
    store = Store.open(session.settings.database.url)
    before = store.check()
    store.upgrade()
    now = store.check()
    where = redaction.hide_text(session.settings.database.url)
    if before.current == now.current:
        click.echo(f"{where} is at revision {now.current} already")
    else:
        click.echo(f"{where}: revision {before.current or 'none'} -> {now.current}")


@db.command()
@app_option
@common_options
@out.output_option
@pass_session
def check(session: Session, output: str) -> None:
    """Say whether the tables fit this version; exits with 1 if they do not.

    \b
    Example:  podyard db check
    """
    session.require_database_file()
    found = Store.open(session.settings.database.url).check()
    if output != "table":
        out.show_data(found, output=output)
    elif found.ok:
        click.echo(f"ok: {redaction.hide_text(session.settings.database.url)} is at revision {found.current}")
    if not found.ok:
        raise Failure(found.message)


def _make_folder(session: Session) -> None:
    """SQLite makes a file, but no folder."""
    path = session.database_file
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "choose another place with --home or the setting database.url"
        raise Failure(f"the folder {path.parent} cannot be made: {error.strerror}; {remedy}") from error
