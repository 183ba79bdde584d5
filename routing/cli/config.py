"""`podyard config`: what the settings are, where each comes from, and whether what they point to is there."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import click
from rich.text import Text

from dispatcher.settings import sections
from routing.cli import application, failure, plaintext
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, app_option, common_options, pass_session
from routing.config import settings as settings_module


@dataclass(frozen=True)
class Finding:
    """How one check went: `ok`, `wrong` or `not checked`."""

    check: str
    result: str
    message: str


_COLUMNS: out.Columns[Finding] = {
    "CHECK": lambda finding: finding.check,
    "RESULT": lambda finding: finding.result,
    "MESSAGE": lambda finding: finding.message,
}


@click.group()
def config() -> None:
    """The settings: a TOML file, and PODYARD_SECTION__KEY in the environment, which wins."""


@config.command()
@app_option
@common_options
@out.output_option
@pass_session
def show(session: Session, output: str) -> None:
    """Show every setting and where its value comes from. Passwords are hidden.

    \b
    Example:  podyard config show
              podyard config show --output json | jq '.[] | select(.source != "default")'
    """
    columns: out.Columns[settings_module.Shown] = {
        "KEY": lambda shown: shown.key,
        "VALUE": lambda shown: None if shown.value is None else Text(plaintext.line(str(shown.value))),
        "FROM": lambda shown: shown.source,
    }
    shown = [one for one in session.settings.redacted() if not (session.app and _is_of_dags(one.key))]
    out.show_list(shown, columns, output=output, empty="")


def _is_of_dags(key: str) -> bool:
    """Whether a setting means nothing to a Celery application. Its own configuration says what its URLs are."""
    others = sections.OF_AN_INSTALLATION - {"broker", "results.url"}
    return key in others or key.partition(".")[0] in others


@config.command()
@app_option
@common_options
@out.output_option
@pass_session
def check(session: Session, output: str) -> None:
    """Check the settings and whatever they point to; exits with 1 if something is wrong.

    With --app what a Celery application says and points to: it needs no DAGs, and no database if nobody asks for its
    pods.

    \b
    Example:  podyard --config /etc/podyard.toml config check
              podyard config check --app shop:app
    """
    findings = _settings(session)
    is_usable = all(finding.result == "ok" for finding in findings)
    for name, one in (CHECKS_OF_APPLICATION if session.app else CHECKS).items():
        findings.append(_try(name, one, session) if is_usable else Finding(name, "not checked", "needs the settings"))
    if is_usable and session.settings.kubernetes.pod_mutation_hook:
        findings.append(_try("pod mutation hook", _pod_mutation_hook, session))
    out.show_list(findings, _COLUMNS, output=output, empty="")
    wrong = [finding.check for finding in findings if finding.result == "wrong"]
    if wrong:
        is_of_dags = not session.app and {"dags folder", "database"} & set(wrong)
        hint = "; a Celery application without DAGs is checked by --app MODULE:APP" if is_of_dags else ""
        raise Failure(f"wrong: {', '.join(dict.fromkeys(wrong))}; the messages above say what to do{hint}")


def _settings(session: Session) -> list[Finding]:
    """One finding for each mistake, or one that names the files; the templates of all rules are read with them."""
    try:
        files = session.settings.files
    except settings_module.SettingsError as error:
        return [Finding("settings", "wrong", problem) for problem in error.problems]
    except Failure as error:  # of an application
        return [Finding("settings", "wrong", error.format_message())]
    read = ", ".join(map(str, files)) or "no file: defaults and environment"
    if session.application:
        says_itself = session.application.app.conf.get("podyard") is not None
        own = f"{application.PLACE} and the environment" if says_itself else read
        read = f"{session.app}, deployment {session.settings.deployment}: {own}"
    templates = sorted({rule.profile.template for rule in session.settings.router.rules if rule.side == "kubernetes"})
    return [Finding("settings", "ok", read), Finding("templates", "ok", ", ".join(templates))]


def _dags_folder(session: Session) -> str:
    folder = session.settings.dags.folder
    if not folder.is_dir():
        raise Failure(f"{folder} is not a folder; make it and put DAG files there, or correct dags.folder")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise Failure(f"{folder} cannot be read; correct its permissions")
    return f"{folder}: {len(list(folder.rglob('*.py')))} Python files"


def _logs_folder(session: Session) -> str:
    """The folder is made when the first log is written: what counts is that it can be."""
    folder = session.settings.logs.folder
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise Failure(f"{there} cannot be written; correct its permissions, or choose another logs.folder")
    return str(folder)


def _pod_mutation_hook(session: Session) -> str:
    """The dispatcher imports it at its first pod: a mistake in its name or in its module is found before."""
    from dispatcher.manifests import builder

    named = session.settings.kubernetes.pod_mutation_hook or ""
    builder.imported_hook(named)
    return named


def _reached(what: str) -> Callable[[Session], str]:
    """The check of this name in `reach`."""

    def check(session: Session) -> str:
        from routing.cli import reach

        if what == "database":
            session.require_database_file()
        reached: reach.Check = getattr(reach, what)
        return _required_to_take(reached(session.settings))

    return check


def _required_to_take(found: str) -> str:
    """Raises Failure for a server that answers and refuses all that it is sent."""
    from routing.cli import reach

    if reach.REFUSES in found:
        raise Failure(f"{found}; make room, or name a server that takes writes")
    return found


def _logs_of_application(session: Session) -> str:
    if session.application and session.application.options.log_folder is None:
        return "none: no log is saved before its pod is deleted; log_folder in app.conf.podyard names a folder"
    return _logs_folder(session)


def _database_of_application(session: Session) -> str:
    if not session.settings.database.url:
        return (
            "none: `podyard pods` and `podyard tasks` need one (database_url in app.conf.podyard,"
            " or PODYARD_DATABASE__URL); tasks do not"
        )
    return _reached("database")(session)


def _broker_of_application(session: Session) -> str:
    from routing.cli import reach

    return _required_to_take(reach.broker_of(session.celery))


def _results_of_application(session: Session) -> str:
    from routing.cli import reach

    return reach.results_of(session.celery)


CHECKS: Mapping[str, Callable[[Session], str]] = {
    "dags folder": _dags_folder,
    "logs folder": _logs_folder,
    **{what: _reached(what) for what in ("broker", "results", "database", "kubernetes", "permissions")},
}


CHECKS_OF_APPLICATION: Mapping[str, Callable[[Session], str]] = {
    "logs folder": _logs_of_application,
    "broker": _broker_of_application,
    "results": _results_of_application,
    "database": _database_of_application,
    **{what: _reached(what) for what in ("kubernetes", "permissions")},
}


def _try(name: str, check: Callable[[Session], str], session: Session) -> Finding:
    try:
        return Finding(name, "ok", check(session))
    except Exception as error:  # a check reports whatever is wrong, and the other checks go on
        return Finding(name, "wrong", failure.describe(error) or failure.describe_defect(error))
