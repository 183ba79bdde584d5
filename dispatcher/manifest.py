"""From a task message to the manifest that is sent: the one path for launching and for rendering. ④ of the flow.

`build` finds the template, reads the sender's wishes and the queue's profile, and calls `podspec.build_pod`, which is
pure. `key_of` and `message_of` read a pod's identity back. No network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dispatcher import names, podspec, template
from dispatcher.message import Message
from dispatcher.options import Options, QueueProfile

ANY_IMAGE_TASK = "dispatcher.pod"
"""The Celery task whose whole body is a pod of any image."""
COMMAND = ("python", "-m", "dispatcher.podrun")
DONE_LABEL = f"{podspec.PREFIX}done"
"""On a finished pod that is kept for people: it is out of every selector of ours."""
_TEMPLATES = template.Templates()
_BARE_POD: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "replaced-at-launch"},
    "spec": {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [{"name": "base", "image": "required"}],
    },
}


def build(message: Message, *, profile: QueueProfile, options: Options, owner: str) -> dict[str, Any]:
    """The manifest of the pod for one message.

    Raises InvalidTemplate, InvalidOverride or InvalidPod, each naming the path and the way out.
    """
    wishes = message.wishes
    common: dict[str, Any] = {
        "identity": podspec.Identity(
            deployment=options.deployment,
            attempt_id=message.id,
            retries=message.retries,
            queue=message.queue,
            task=message.name,
            owner=owner,
            message=message.encode(),
            name=tuple(wishes.get("name") or (message.name,)),
        ),
        "labels": wishes.get("labels") or {},
    }
    if message.name == ANY_IMAGE_TASK:
        return _any_image(message, profile=profile, common=common)
    source = wishes.get("pod_template_file") or profile.template
    return podspec.build_pod(
        **common,
        template=_TEMPLATES.get(source),
        override=wishes.get("pod_override"),
        image=profile.image or options.image,
        namespace=profile.namespace,
        command=COMMAND,
        env={
            **profile.env,
            "PODYARD_APP": options.app_path,
            "PODYARD_RESULT_MAX_BYTES": str(options.result_max_bytes),
        },
    )


def _any_image(message: Message, *, profile: QueueProfile, common: Mapping[str, Any]) -> dict[str, Any]:
    wanted = message.kwargs
    container: dict[str, Any] = {"name": "base", "image": wanted["image"]}
    if wanted.get("cmds"):
        container["command"] = list(wanted["cmds"])
    if wanted.get("arguments"):
        container["args"] = list(wanted["arguments"])
    if wanted.get("env_vars"):
        container["env"] = _env(wanted["env_vars"])
    override = {"metadata": {"labels": wanted.get("labels") or {}}, "spec": {"containers": [container]}}
    stem = wanted.get("name")
    identity = common["identity"]
    if stem:
        identity = replace(identity, name=(str(stem),))
    return podspec.build_pod(
        **{**common, "identity": identity},
        template=_BARE_POD,
        override=override,
        namespace=wanted.get("namespace") or profile.namespace,
        command=None,
    )


def _env(env_vars: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(env_vars, Mapping):
        return [{"name": name, "value": str(value)} for name, value in env_vars.items()]
    return [dict(entry) for entry in env_vars]


def selector(*, deployment: str, owner: str | None = None) -> str:
    """The label selector of all pods of a deployment, or of one dispatcher's, that are not marked as done."""
    parts = [f"{podspec.DEPLOYMENT_LABEL}={names.label_value(deployment)}", f"!{DONE_LABEL}"]
    if owner is not None:
        parts.append(f"{podspec.OWNER_LABEL}={names.label_value(owner)}")
    return ",".join(parts)


def key_of(pod: Mapping[str, Any]) -> tuple[str, int] | None:
    """(task id, retries) that a pod claims to be, or None where it does not say or says nonsense."""
    annotations = pod.get("metadata", {}).get("annotations") or {}
    try:
        return annotations[podspec.ATTEMPT_ANNOTATION], int(annotations[podspec.RETRIES_ANNOTATION])
    except (KeyError, ValueError, TypeError):
        return None


def message_of(pod: Mapping[str, Any]) -> Message:
    """The task message that a pod carries. Raises ValueError where it carries none that can be read."""
    annotations = pod.get("metadata", {}).get("annotations") or {}
    text = annotations.get(podspec.MESSAGE_ANNOTATION)
    if not text:
        raise ValueError("the pod carries no task message")
    return Message.decode(text)
