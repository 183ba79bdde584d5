"""Workloads: messages of Airflow's executor, whose pod is Airflow's own image with Airflow's own entry point.

The pod reads the workload from a file of the Secret that it owns, so that the token in it stands in no manifest. No
Podyard is needed in the image: the container's exit code and the pod's status say how it ended. Pure.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dispatcher import errors
from dispatcher.manifests import message_secret
from dispatcher.protocol.message import Message

TASK = "execute_workload"
"""The Celery task of Airflow's Celery provider."""
COMMAND = ("python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-path")
# Airflow's own entry point reads the file; only what it reads is mounted, so the message beside it stays unseen.
KEY = "workload"
FILE = f"{message_secret.MOUNT_PATH}/{KEY}.json"


EXPIRED = "WorkloadExpired"
"""The reason of a pod that came after the token of its workload had expired: nothing of the task ran."""
_REFUSED_WITHIN_S = 60.0
"""A pod whose token is refused ends so soon."""


def was_too_late(message: Message, *, started_at: datetime | None, ended_at: datetime | None) -> bool:
    """Whether a pod that failed began after its message had expired, and ended as fast as a refused token lets it."""
    expires = message.headers.get("expires")
    if message.name != TASK or not isinstance(expires, str) or started_at is None or ended_at is None:
        return False
    try:
        expires_at = datetime.fromisoformat(expires)
    except ValueError:
        return False
    # A time without a zone is UTC, which is Celery's own default (`enable_utc`).
    if expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)
    return started_at >= expires_at and (ended_at - started_at).total_seconds() <= _REFUSED_WITHIN_S


def text_of(message: Message) -> str:
    """The workload in a message, as JSON. Raises InvalidPod for a message that holds none."""
    # Airflow's executor sends it by position; `input` is what its task calls the parameter.
    text = message.args[0] if message.args else message.kwargs.get("input")
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        raise errors.InvalidPod(f"{TASK}: the message holds no workload of Airflow 3; was it sent by an older Airflow?")
    return text


def layer(name: str) -> dict[str, Any]:
    """What a pod has whose workload is in the Secret `name`: the file, and nothing else of the message."""
    made = message_secret.layer(name)
    made["spec"]["volumes"][0]["secret"]["items"] = [{"key": KEY, "path": f"{KEY}.json"}]
    return made


def files(message: Message) -> Mapping[str, str]:
    """What stands in the Secret of a message's pod beside the message itself."""
    return {KEY: text_of(message)} if message.name == TASK else {}
