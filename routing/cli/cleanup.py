"""`podyard pods cleanup`: deletes finished pods that were kept, once they are old enough."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from routing.cli import output as out
from routing.cli import plaintext
from routing.cli.failure import Failure
from routing.cli.session import Session, app_option, common_options, pass_session

if TYPE_CHECKING:
    from dispatcher.finishing.retention import RetentionRule
    from dispatcher.kubeapi import client

AT_ONCE = 16
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A kept pod, and what became of it."""

    namespace: str
    pod: str
    outcome: str
    ended_at: datetime | None
    result: str


_COLUMNS: out.Columns[Leftover] = {
    "NAMESPACE": lambda one: one.namespace,
    "POD": lambda one: Text(plaintext.line(one.pod)),
    "OUTCOME": lambda one: one.outcome,
    "ENDED": lambda one: one.ended_at,
    "RESULT": lambda one: Text(plaintext.line(one.result)),
}


def _age(context: click.Context, parameter: click.Parameter, text: str) -> float:
    found = _AGE.fullmatch(text.strip())
    if not found:
        raise click.BadParameter(f"{text!r} is no age; write 90m, 36h or 7d")
    return float(found[1]) * _UNITS[found[2]]


@click.command()
@click.option(
    "--older-than", callback=_age, default="24h", show_default=True, help="Ended so long ago: 30s, 90m, 36h, 7d."
)
@click.option(
    "--outcome", type=click.Choice(["any", "succeeded", "failed"]), default="any", show_default=True, help="Only these."
)
@click.option("--deployment", help="The deployment whose pods are meant; else that of the settings.")
@click.option("--namespace", "-n", "namespaces", multiple=True, help="Else every namespace that the settings name.")
@click.option("--dry-run", is_flag=True, help="Delete nothing, only list.")
@app_option
@common_options
@out.output_option
@pass_session
def cleanup(
    session: Session,
    *,
    older_than: float,
    outcome: str,
    deployment: str | None,
    namespaces: Sequence[str],
    dry_run: bool,
    output: str,
) -> None:
    """Delete finished pods that were kept (`delete` of a queue, `on_finish_action`), once they are old enough.

    What runs is not touched, nor what ended without its outcome being stored, nor any pod of another deployment.

    \b
    Example:  podyard pods cleanup --older-than 7d --dry-run
    """
    from dispatcher.finishing import retention
    from dispatcher.kubeapi import client, server_access

    settings = session.settings
    access = server_access.connect_as(settings.kubernetes)
    places = namespaces or _namespaces(session)
    rule = retention.RetentionRule(older_than_s=older_than, outcome=outcome)

    async def work() -> tuple[list[Leftover], Counter[str]]:
        async with client.KubeClient(access) as api:
            return await _clean(api, places, rule, deployment=deployment or settings.deployment, dry_run=dry_run)

    found, others = asyncio.run(work())
    out.show_list(found, _COLUMNS, output=output, empty="no leftovers: nothing was kept so long")
    if others["unread"]:
        click.echo(
            f"{others['unread']} finished pods are left alone: a dispatcher has not stored their outcome yet", err=True
        )
    failed = [one for one in found if one.result not in ("deleted", "would be deleted")]
    if failed:
        raise Failure(f"{len(failed)} of {len(found)} pods could not be deleted; the first: {failed[0].result}")


def _namespaces(session: Session) -> list[str]:
    settings = session.settings
    rules = {rule.profile.namespace for rule in settings.router.rules if rule.side == "kubernetes"}
    # A pattern has no namespace to list; those need --namespace.
    listed = {name for name in settings.policy.namespaces if not set("*?[") & set(name)}
    return sorted({settings.kubernetes.namespace, *rules, *listed})


async def _clean(
    api: "client.KubeClient", namespaces: Sequence[str], rule: "RetentionRule", *, deployment: str, dry_run: bool
) -> tuple[list[Leftover], Counter[str]]:
    """The leftovers and what became of them, and how many pods were left alone and why."""
    from dispatcher.finishing import retention

    others: Counter[str] = Counter()
    meant: list[Mapping[str, Any]] = []
    now = datetime.now(UTC)
    for namespace in namespaces:
        for pod in (await api.list_pods(namespace, selector=retention.selector(deployment))).pods:
            verdict = retention.decide(pod, rule, now=now)
            if verdict == "leftover":
                meant.append(pod)
            else:
                others[verdict] += 1
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(pod: Mapping[str, Any]) -> Leftover:
        async with slots:
            return await _delete(api, pod, dry_run=dry_run)

    return list(await asyncio.gather(*map(one, meant))), others


async def _delete(api: "client.KubeClient", pod: Mapping[str, Any], *, dry_run: bool) -> Leftover:
    from dispatcher import errors
    from dispatcher.finishing import retention

    metadata = pod["metadata"]
    result = "would be deleted"
    if not dry_run:
        try:
            # By uid: a pod that was created under this name since the list is
            # another one. Without grace, for it has ended.
            await api.delete_pod(metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_s=0)
            result = "deleted"
        except (errors.ApiError, errors.ApiUnavailable) as error:
            result = str(error)
    return Leftover(
        namespace=metadata["namespace"],
        pod=metadata["name"],
        outcome=str(pod["status"]["phase"]).lower(),
        ended_at=retention.time_of_end(pod),
        result=result,
    )
