"""`podyard queues`: the routing rules, and which of them decides for a queue."""

from typing import Any

import click

from dispatcher.options import QueueProfile
from routing import redaction, router
from routing.cli import output as out
from routing.cli import plaintext
from routing.cli.session import Session, common_options, pass_session
from routing.settings import DEFAULT


@click.group()
def queues() -> None:
    """Where queues run: on Celery workers, or in pods."""


@queues.command("list")
@common_options
@out.output_option
@pass_session
def list_queues(session: Session, output: str) -> None:
    """List the routing rules in the order in which they are asked.

    \b
    Example:  podyard queues list --output json
    """
    rules = session.settings.router.rules
    columns: out.Columns[router.Rule] = {
        "QUEUE": lambda rule: rule.name,
        "SIDE": lambda rule: rule.side,
        "TEMPLATE": lambda rule: _of_pods(rule, "template"),
        "NAMESPACE": lambda rule: _of_pods(rule, "namespace"),
        "MAX PODS": lambda rule: _of_pods(rule, "max_pods"),
        "FROM": lambda rule: _source(session, rule.name),
    }
    out.show_list(rules, columns, output=output, empty="", record=lambda rule: _record(session, rule))


@queues.command()
@click.argument("queue")
@common_options
@out.output_option
@pass_session
def explain(session: Session, queue: str, output: str) -> None:
    """Say where QUEUE runs, which rule decides and why, and which other rules match.

    \b
    Example:  podyard queues explain kubernetes
    """
    found = session.settings.router.explain(queue)
    if output != "table":
        out.show_data(_explanation(session, found), output=output)
        return
    for line in _lines(session, found):
        click.echo(plaintext.line(line) if not line.startswith("  ") else "  " + plaintext.line(line))


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
        lines.append(f"consumed by: podyard dispatcher{_queues_option(session, route)}")
    else:
        lines.append(f"consumed by: podyard worker{_queues_option(session, route)}")
    lines += [f"also matches: the rule {rule.name!r} (side {rule.side}); not asked: {why}" for rule, why in found.lost]
    return lines


def _queues_option(session: Session, route: router.Route) -> str:
    known = (*session.settings.router.names(route.side), router.DEFAULT_QUEUE)
    return "" if route.queue in known else f" --queues {route.queue}"


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


def _record(session: Session, rule: router.Rule) -> dict[str, Any]:
    profile = _profile(rule.profile) if rule.side == "kubernetes" else {}
    return {"queue": rule.name, "side": rule.side, **profile, "source": _source(session, rule.name)}


def _profile(profile: QueueProfile) -> dict[str, Any]:
    return {**vars(profile), "env": redaction.hide_environment(profile.env)}


def _of_pods(rule: router.Rule, key: str) -> object:
    return getattr(rule.profile, key) if rule.side == "kubernetes" else None


def _source(session: Session, rule: str) -> str:
    """Where the rule begins: the source of its side, else of the first of its keys, else the default."""
    return session.settings.rule_source.get(rule, DEFAULT)
