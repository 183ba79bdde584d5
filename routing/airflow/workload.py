"""Workload messages: what the scheduler of Airflow sends to a dispatcher for one task instance or callback.

The body is the workload as JSON, as Airflow's own Celery worker takes it. What does not travel in there, because
Airflow excludes it, or because only a pod has use for it, stands in the header `podyard`: override, template, labels
and the readable part of the pod's name. Pure: no clock, no network; workloads are recognised by their shape.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.manifests import merge

TASK_NAME = "execute_workload"
"""The Celery task of the Celery provider; the dispatcher serves it under the same name."""

START_MARGIN_S = 30.0
"""A pod that is created so shortly before its token expires would start too late to use it."""
_MARGIN_SHARE = 0.1
"""Where tokens live for a few minutes only, no more than this part of their life is held back."""


@dataclass(frozen=True, kw_only=True)
class WorkloadMessage:
    """One message for a dispatcher, without its id and queue."""

    body: str
    """The workload as JSON; it holds the token."""
    pod: Mapping[str, Any] = field(default_factory=dict)
    """The header `podyard`."""
    expires_at: datetime | None = None
    """From when on no pod may be launched for it, because its token would be refused."""


def build(workload: Any) -> WorkloadMessage:
    """The message for a workload of Airflow (`ExecuteTask`, `ExecuteCallback`).

    Raises InvalidOverride, which names the path, for an `executor_config["pod_override"]` that is none.
    """
    return WorkloadMessage(
        body=workload.model_dump_json(), pod=_pod(workload), expires_at=expires_at(getattr(workload, "token", ""))
    )


def expires_at(token: str) -> datetime | None:
    """The last moment to launch a pod for a workload with this token (a JWT); None where it does not say.

    The signature is not checked: the API server does that, and nobody is let in by what is read here.
    """
    claims = _claims(token)
    until, since = claims.get("exp"), claims.get("iat")
    if not isinstance(until, int | float):
        return None
    margin_s = START_MARGIN_S
    if isinstance(since, int | float):
        margin_s = min(margin_s, _MARGIN_SHARE * max(0.0, until - since))
    try:
        return datetime.fromtimestamp(until, UTC) - timedelta(seconds=margin_s)
    except (ValueError, OverflowError, OSError):  # no time that this machine knows
        return None


def _claims(token: str) -> Mapping[str, Any]:
    """The claims of a JWT; empty where it is none."""
    # No JWT library: nothing is verified here, and the dispatcher needs one claim.
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _pod(workload: Any) -> dict[str, Any]:
    """The header `podyard` for a workload."""
    instance = getattr(workload, "ti", None)
    if instance is None:  # a callback belongs to no task instance
        return {"name": ["callback"]}
    facts = _facts(instance)
    config = getattr(instance, "executor_config", None) or {}
    pod: dict[str, Any] = {
        "name": [instance.dag_id, instance.task_id],
        "labels": facts,
        # Facts last: no override of an author may say that it is another task's pod.
        "pod_override": merge.overlay(
            merge.plain_override(config.get("pod_override")), {"metadata": {"annotations": facts}}
        ),
    }
    template = config.get("pod_template_file")
    if template:
        pod["pod_template_file"] = str(template)
    return pod


def _facts(instance: Any) -> dict[str, str]:
    """Which task instance it is, under the names that pods of Airflow's own Kubernetes executor have.

    As annotations the values are raw; the dispatcher makes valid label values of them.
    """
    facts = {
        "dag_id": instance.dag_id,
        "task_id": instance.task_id,
        "run_id": instance.run_id,
        "try_number": str(instance.try_number),
    }
    index = getattr(instance, "map_index", -1)
    if index is not None and index >= 0:
        facts["map_index"] = str(index)
    return facts
