"""`podyard airflow`: what a person asks who runs PodyardExecutor. In the environment of Airflow itself."""

import os

import click

from dispatcher import extras
from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, common_options, pass_session


@click.group()
@common_options
def airflow() -> None:
    """Look at the Airflow 3 in whose environment this runs; see docs/airflow.md."""


@airflow.command()
@out.output_option
@common_options
@pass_session
def check(session: Session, output: str) -> None:
    """Say what is set, what is missing and what will not work; exits with 1 if tasks of pods cannot run.

    \b
    Example:  podyard airflow check
    """
    extras.require("airflow", for_what="`podyard airflow check`, which runs in the environment of Airflow,")
    assert session.settings  # read once here, so that --config counts for all below
    # Airflow logs to stdout while it is imported, where the answer belongs.
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
    from routing.airflow import check as checks
    from routing.airflow import versions

    trouble = versions.trouble(versions.installed())
    if trouble:
        raise Failure(trouble)
    from routing.airflow import facts

    findings = checks.judge(facts.gather())
    out.show_list(
        findings,
        {"CHECK": lambda one: one.check, "RESULT": lambda one: one.result, "MESSAGE": lambda one: one.message},
        output=output,
        empty="",
    )
    wrong = [finding.check for finding in findings if finding.result == "wrong"]
    if wrong:
        raise Failure(f"wrong: {', '.join(dict.fromkeys(wrong))}; the messages above say what to do")
