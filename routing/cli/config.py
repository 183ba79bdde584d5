"""`podyard config`: what the settings are, where each comes from, and whether what they point to is there."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import click
from rich.text import Text

from routing.cli import failure, plaintext
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, common_options, pass_session
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
    out.show_list(session.settings.redacted(), columns, output=output, empty="")


@config.command()
@common_options
@out.output_option
@pass_session
def check(session: Session, output: str) -> None:
    """Check the settings and whatever they point to; exits with 1 if something is wrong.

    \b
    Example:  podyard --config /etc/podyard.toml config check
    """
    findings = _settings(session)
    is_usable = all(finding.result == "ok" for finding in findings)
    for name, one in CHECKS.items():
        findings.append(_try(name, one, session) if is_usable else Finding(name, "not checked", "needs the settings"))
    if is_usable and session.settings.kubernetes.pod_mutation_hook:
        findings.append(_try("pod mutation hook", _pod_mutation_hook, session))
    out.show_list(findings, _COLUMNS, output=output, empty="")
    wrong = [finding.check for finding in findings if finding.result == "wrong"]
    if wrong:
        raise Failure(f"wrong: {', '.join(dict.fromkeys(wrong))}; the messages above say what to do")


def _settings(session: Session) -> list[Finding]:
    """One finding for each mistake, or one that names the files; the templates of all rules are read with them."""
    try:
        files = session.settings.files
    except settings_module.SettingsError as error:
        return [Finding("settings", "wrong", problem) for problem in error.problems]
    read = ", ".join(map(str, files)) or "no file: defaults and environment"
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
        return reached(session.settings)

    return check


CHECKS: Mapping[str, Callable[[Session], str]] = {
    "dags folder": _dags_folder,
    "logs folder": _logs_folder,
    **{what: _reached(what) for what in ("broker", "results", "database", "kubernetes", "permissions")},
}


def _try(name: str, check: Callable[[Session], str], session: Session) -> Finding:
    try:
        return Finding(name, "ok", check(session))
    except Exception as error:  # noqa: BLE001 - a check reports whatever is wrong, and the other checks go on
        return Finding(name, "wrong", failure.describe(error) or failure.describe_defect(error))
