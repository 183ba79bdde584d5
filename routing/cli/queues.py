"""`podyard queues`: the routing rules, which of them decides for a queue, and who consumes it."""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from dispatcher.attempts import wait_rules
from dispatcher.manifests import redaction
from dispatcher.options import QueueProfile
from routing import commands, router
from routing.airflow import rules
from routing.cli import output as out
from routing.cli import plaintext
from routing.cli.session import Session, app_option, common_options, pass_session
from routing.config.settings import DEFAULT

if TYPE_CHECKING:
    from routing.cli import queuefacts


@click.group()
def queues() -> None:
    """Where queues run: on Celery workers, or in pods."""


@queues.command("list")
@app_option
@common_options
@out.output_option
@pass_session
def list_queues(session: Session, output: str) -> None:
    """List the routing rules in the order in which they are asked, then other queues in use: who consumes them, and
    what waits and runs.

    MESSAGES are those that nobody has taken, on every priority. With --app the queues of a Celery application, on its
    broker and by its transport options (global_keyprefix, priority_steps, sep).

    \b
    Example:  podyard queues list --output json
              podyard queues list --app shop:app
    """
    from routing.cli import queuefacts

    facts, unknown = queuefacts.gather(
        session.celery, session.settings.router, path=session.app, open_store=lambda: session.store
    )
    now = datetime.now(UTC)
    columns: out.Columns[queuefacts.Fact] = {
        "QUEUE": lambda fact: fact.queue,
        "SIDE": lambda fact: fact.side,
        "RULE": lambda fact: fact.rule,
        "FROM": lambda fact: _source(session, fact.rule),
        "CONSUMERS": _consumers,
        "MESSAGES": lambda fact: fact.messages,
        "IN FLIGHT": lambda fact: fact.in_flight,
        "WAITING": lambda fact: fact.waiting,
        "OLDEST": lambda fact: None if fact.oldest_at is None else f"{(now - fact.oldest_at).total_seconds():.0f} s",
    }
    out.show_list(facts, columns, output=output, empty="", record=lambda fact: _record(session, fact, now))
    if output == "table":
        for fact in facts:
            if fact.is_unconsumed:
                click.echo(plaintext.line(f"NO CONSUMER of the queue {fact.queue!r}; start one: {fact.start_command}"))
    for line in unknown:
        click.echo(plaintext.line(line), err=True)


def _consumers(fact: "queuefacts.Fact") -> str | None:
    return "NO CONSUMER" if fact.is_unconsumed else ", ".join(fact.consumers or ()) or None


@queues.command()
@click.argument("queue")
@app_option
@common_options
@out.output_option
@pass_session
def explain(session: Session, queue: str, output: str) -> None:
    """Say where QUEUE runs, which rule decides and why, and which other rules match.

    \b
    Example:  podyard queues explain kubernetes
    """
    found = _router(session).explain(queue)
    if output != "table":
        out.show_data(_explanation(session, found), output=output)
        return
    for line in _lines(session, found):
        click.echo(plaintext.line(line) if not line.startswith("  ") else "  " + plaintext.line(line))


def _router(session: Session) -> router.Router:
    """The rules; where none is written, the queue of Airflow's own option, if the environment has it."""
    if session.application:
        return session.settings.router
    return rules.of(session.settings, kubernetes_queue=os.environ.get(rules.VARIABLE)).router


def _lines(session: Session, found: router.Explanation) -> list[str]:
    route = found.route
    runs = {"celery": "in the processes of Celery workers", "kubernetes": "in pods, one for each task"}[route.side]
    lines = [f"queue {route.queue!r}: side {route.side}: its tasks run {runs}"]
    if route.rule == router.NO_RULE:
        lines.append(f"decided by no rule: {found.why}")
    else:
        lines.append(f"decided by the rule {route.rule!r} ({_source(session, route.rule)}): {found.why}")
    if route.side == "kubernetes":
        profile = route.profile
        lines.append(f"pods: template {profile.template}, namespace {profile.namespace}, max_pods {profile.max_pods}")
    lines.append(f"consumed by: {_consumer(session, route)}")
    lines += [
        f"waits: {name}: {rule}: then {rule.consequence}" for name, rule in wait_rules.described(route.profile.waits)
    ]
    lines += [f"also matches: the rule {rule.name!r} (side {rule.side}); not asked: {why}" for rule, why in found.lost]
    return lines


def _consumer(session: Session, route: router.Route) -> str:
    """The command that consumes it."""
    from routing.store import messagewaits

    queues = _queues_option(session, route)
    if session.app is None:
        return commands.plain(messagewaits.PROGRAMS[route.side], *queues)
    if route.side == "celery":
        return commands.plain("-A", session.app, "worker", "-Q", route.queue, program="celery")
    return commands.plain("dispatcher", "--app", session.app, *queues)


def _queues_option(session: Session, route: router.Route) -> tuple[str, ...]:
    known = (*_router(session).names(route.side), router.DEFAULT_QUEUE)
    return () if route.queue in known else ("--queues", route.queue)


def _explanation(session: Session, found: router.Explanation) -> dict[str, Any]:
    return {
        "queue": found.route.queue,
        "side": found.route.side,
        "rule": None if found.route.rule == router.NO_RULE else found.route.rule,
        "source": _source(session, found.route.rule),
        "why": found.why,
        "profile": _profile(found.route.profile) if found.route.side == "kubernetes" else None,
        "lost": [{"rule": rule.name, "side": rule.side, "why": why} for rule, why in found.lost],
    }


def _record(session: Session, fact: "queuefacts.Fact", now: datetime) -> dict[str, Any]:
    route = session.settings.router.route(fact.queue)
    rule = session.settings.queues.get(fact.rule)
    oldest_s = None if fact.oldest_at is None else max(0.0, (now - fact.oldest_at).total_seconds())
    return {
        "queue": fact.queue,
        "side": fact.side,
        "rule": None if fact.rule == router.NO_RULE else fact.rule,
        **(_profile((rule or route).profile) if fact.side == "kubernetes" else {}),
        "source": _source(session, fact.rule),
        "consumers": fact.consumers,
        "messages": fact.messages,
        "in_flight": fact.in_flight,
        "waiting": fact.waiting,
        "oldest_waiting_s": oldest_s,
        "start": fact.start_command if fact.is_unconsumed else None,
    }


def _profile(profile: QueueProfile) -> dict[str, Any]:
    return {name: redaction.hide(value) for name, value in vars(profile).items()}


def _source(session: Session, rule: str) -> str:
    """Where the rule begins: the source of its side, else of the first of its keys, else the default."""
    if rule == os.environ.get(rules.VARIABLE) and not session.settings.rule_source:
        return f"environment {rules.VARIABLE}"
    return session.settings.rule_source.get(rule, DEFAULT)
