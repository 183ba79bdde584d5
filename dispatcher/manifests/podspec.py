"""Pod manifests: made of a template, a queue's profile, a task's override and the task's identity.

Pure. Order: template, then image and environment of the queue's profile, then the override, then what earlier attempts
teach, and identity last, so that
nothing which anybody writes makes a pod claim to be another, run another command, or run it twice.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dispatcher import errors
from dispatcher.manifests import labels, merge, names, retry_hints

OWN_ENV = "PODYARD_"
"""How the names of environment variables begin that an override cannot change in a task pod."""
MESSAGE_ENV = "PODYARD_MESSAGE"
MESSAGE_FILE_ENV = "PODYARD_MESSAGE_FILE"
"""The file that holds the message, where the variable does not."""

TIME_LIMIT_ENV = "PODYARD_TIME_LIMIT_S"
SOFT_TIME_LIMIT_ENV = "PODYARD_SOFT_TIME_LIMIT_S"
INCLUDE_ENV = "PODYARD_INCLUDE"
"""Modules to import beside those that the app names, with commas between."""

TERMINATION_ENV = "PODYARD_TERMINATION_BYTES"
"""How long an outcome in the termination message may be, where it is less than usual."""
_TERMINATION_BYTES = 4096  # what the kubelet keeps of one container's message
_TERMINATION_BYTES_OF_POD = 12_288  # what it keeps of all containers of a pod together, a like part of each

_MAX_MESSAGE_BYTES = 131_072 - len(f"{MESSAGE_ENV}=") - 1  # Linux: one string of an environment is at most 128 KiB
_MAX_ANNOTATIONS_BYTES = 262_144  # the API server: all keys and values of one object

_LABEL_KEY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

Pod = dict[str, Any]
Hook = Callable[[Pod], Mapping[str, Any] | None]
"""What an installation does to every pod: changes the manifest that it is given, or returns another one."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which attempt a pod runs, and for whom: what makes its name, its labels and its annotations."""

    deployment: str
    attempt_id: str
    retries: int
    queue: str
    task: str
    """The name of the Celery task, such as `routing.run`."""
    owner: str
    """The node name of the dispatcher that creates the pod."""
    message: str
    """The whole task message as JSON text: what the pod runs, and what another dispatcher rebuilds the request from."""
    replaced: int = 0
    """How often the task has replaced itself before."""
    name: tuple[str, ...] = ()
    """What people call the task; the pod's name begins with it. Empty: the name of the Celery task."""

    @property
    def key(self) -> str:
        """What the hash in the pod's name stands for: one attempt, one name."""
        again = f"/replaced-{self.replaced}" if self.replaced else ""
        return f"{self.deployment}/{self.attempt_id}/{self.retries}{again}"

    @property
    def pod_name(self) -> str:
        """The same for the same attempt, always: creating the pod is the claim."""
        return names.pod_name(*(self.name or (self.task,)), key=self.key)


def build_pod(
    *,
    template: Mapping[str, Any],
    identity: Identity,
    namespace: str,
    command: Sequence[str] | None,
    args: Sequence[str] | None = None,
    override: Any = None,
    image: str | None = None,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str | None] | None = None,
    base: str = merge.BASE,
    hints: retry_hints.RetryHints = retry_hints.NONE,
    hook: Hook | None = None,
    has_message: bool = True,
) -> Pod:
    """The manifest of one attempt's pod, plain and new; no input is changed.

    `template` as `template.load_template` gives it; `override` as `podmerge.merge_pod` takes it, or a list of such, of
    which later ones win; `namespace`, `image` and `env` come from the queue's profile; `labels` are raw texts, made
    valid here. `command` and `args` are those of the base container of a task pod, which also gets its message in
    `PODYARD_MESSAGE` and keeps every `PODYARD_` variable of `env` whatever an override says, unless `has_message` is
    false: then its command knows nothing of us. With a `command` of None the pod runs what template and override say.

    An override of name, labels or annotations that are ours has no effect. One that would run something else, elsewhere
    or twice (`command`, `args` of a task pod, `restartPolicy`, `metadata.namespace`) raises InvalidOverride with its
    path. `hints` is what earlier attempts teach; it is applied after the override. `hook` is called with the pod
    after that and before the identity. `base` is the name of the task container.

    Raises InvalidTemplate and InvalidOverride as `merge_pod` does, InvalidPod for a pod that cannot be launched and for
    whatever the hook raises.
    """
    layers = override if isinstance(override, list | tuple) else [override]
    # Each layer is checked by itself: an error names the path in what somebody wrote, not in the merge of all.
    uppers = [merge.plain_override(layer, base=base) for layer in layers if layer]
    for upper in uppers:
        _refuse_takeover(upper, is_task=command is not None, namespace=namespace, base=base)
    given = env or {}
    # Ours are laid on last, the queue's below the override: an
    # author may change what the queue sets, never what we do.
    own_env = {name: value for name, value in given.items() if command is not None and name.startswith(OWN_ENV)}
    queue_env = {name: value for name, value in given.items() if name not in own_env}
    pod = merge.plain_base(template)
    if image or queue_env:
        merge.overlay(pod, _profile_layer(image=image, env=queue_env, base=base))
    for upper in uppers:
        merge.overlay(pod, upper)
    retry_hints.apply(pod, hints, base=base)
    if hook is not None:
        pod = _hooked(pod, hook)
    # After the hook, which may have returned another pod.
    container = _task_container(pod, base)
    merge.overlay(pod, _identity_layer(identity, namespace=namespace, texts=labels or {}, base=base))
    _drop_what_only_misleads(pod, container, base=base)
    if command is not None:
        _set_command(container, command, args or ())
    if command is not None and has_message:
        merge.overlay(pod, _env_layer({**own_env, **_termination_room(pod["spec"])}))
        _check_message(identity.message)
    # Of the whole pod: the API server counts the author's and the hook's, too, and would refuse it with a 422.
    _check_annotations(pod["metadata"]["annotations"])
    return pod


def _hooked(pod: Pod, hook: Hook) -> Pod:
    """The pod that an installation's hook made of it, checked anew. Whatever the hook raises is this pod's failure."""
    name = f"{hook.__module__}.{getattr(hook, '__qualname__', type(hook).__name__)}"
    try:
        changed = hook(pod)
    except Exception as error:  # the author of the hook is a third party: one bad pod must fail alone
        raise errors.InvalidPod(f"pod_mutation_hook {name} raised {type(error).__name__}: {error}") from error
    try:
        return merge.plain_base(pod if changed is None else changed)
    except errors.InvalidTemplate as wrong:
        raise errors.InvalidPod(
            f"pod_mutation_hook {name} left a pod that cannot be launched: {str(wrong).removeprefix('pod template: ')}"
        ) from None


def _refuse_takeover(override: Pod, *, is_task: bool, namespace: str, base: str) -> None:
    """Raises InvalidOverride for what would run something else, elsewhere or twice."""
    spec = override.get("spec") or {}
    if spec.get("restartPolicy") not in {None, "", "Never"}:
        raise _taken("spec.restartPolicy", "a pod runs one attempt, so it is always Never; use retries of the task")
    if (override.get("metadata") or {}).get("namespace") not in {None, "", namespace}:
        raise _taken(
            "metadata.namespace",
            f"pods of this queue run in {namespace!r}; set namespace in the queue's rule, or choose another queue",
        )
    for index, container in enumerate(spec.get("containers") or []):
        if container["name"] == base:
            _refuse_takeover_of_container(container, f"spec.containers[{index}]", is_task=is_task)


def _refuse_takeover_of_container(container: Pod, path: str, *, is_task: bool) -> None:
    if container.get("restartPolicy") not in {None, "", "Never"} or container.get("restartPolicyRules"):
        raise _taken(f"{path}.restartPolicy", "a pod runs one attempt, so the task container is never restarted")
    for field in ("command", "args", "terminationMessagePath") if is_task else ():
        if field in container and container[field] not in ("", []):
            raise _taken(
                f"{path}.{field}",
                "the dispatcher sets it, it runs the task; to run a command of your own, use a pod task",
            )


def _taken(path: str, why: str) -> errors.InvalidOverride:
    return errors.InvalidOverride(f"pod override: {path}: cannot be overridden: {why}")


def _profile_layer(*, image: str | None, env: Mapping[str, str], base: str) -> Pod:
    """What the queue's profile lays over the template."""
    container: Pod = {"name": base, "env": [{"name": name, "value": value} for name, value in env.items()]}
    if image:
        container["image"] = image
    return {"spec": {"containers": [container]}}


def _task_container(pod: Pod, base: str) -> Pod:
    """The task container of a merged pod, which must be able to run."""
    containers: list[Pod] = (pod.get("spec") or {}).get("containers") or []
    for index, container in enumerate(containers):
        if container.get("name") == base:
            if not (container.get("image") or "").strip():
                raise errors.InvalidPod(
                    f"pod: spec.containers[{index}].image: is missing; the task container needs one"
                )
            return container
    raise errors.InvalidPod(f"pod: spec.containers: none is named {base!r}, which is the one that runs the task")


def _identity_layer(identity: Identity, *, namespace: str, texts: Mapping[str, str | None], base: str) -> Pod:
    """What is laid over everything else."""
    container = {} if base == merge.BASE else {labels.CONTAINER_ANNOTATION: base}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": identity.pod_name,
            "namespace": namespace,
            "labels": {_label_key(key): names.label_value(_text(value)) for key, value in texts.items()}
            | {
                labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
                labels.DEPLOYMENT_LABEL: names.label_value(identity.deployment),
                labels.QUEUE_LABEL: names.label_value(identity.queue),
                labels.ATTEMPT_LABEL: names.label_value(identity.attempt_id),
                labels.TASK_LABEL: names.label_value(identity.task),
                labels.OWNER_LABEL: names.label_value(identity.owner),
            },
            "annotations": {
                labels.ATTEMPT_ANNOTATION: identity.attempt_id,
                labels.RETRIES_ANNOTATION: str(identity.retries),
                **({labels.REPLACED_ANNOTATION: str(identity.replaced)} if identity.replaced else {}),
                labels.QUEUE_ANNOTATION: identity.queue,
                labels.TASK_ANNOTATION: identity.task,
                labels.MESSAGE_ANNOTATION: identity.message,
                **container,
            },
        },
        "spec": {"restartPolicy": "Never"},
    }


def _text(value: object) -> str | None:
    """Labels come out of JSON, where a number may stand for a text."""
    return value if value is None or isinstance(value, str) else str(value)


def _label_key(key: str) -> str:
    if not _LABEL_KEY.fullmatch(key):
        raise errors.InvalidPod(
            f"pod: metadata.labels: {key!r} is not a label key; use letters, digits, '-', '_' and '.'"
        )
    return key


def _drop_what_only_misleads(pod: Pod, container: Pod, *, base: str) -> None:
    """Fields of a template that contradict the identity, or that only the cluster writes."""
    # People export a running pod and make a template of it.
    pod.pop("status", None)
    if base == merge.BASE:
        pod["metadata"]["annotations"].pop(labels.CONTAINER_ANNOTATION, None)
    # The API server prefers `name`, but the two of them say different things to whoever reads the pod.
    pod["metadata"].pop("generateName", None)
    # A container's own restart policy (Kubernetes 1.34) would run the body twice in one pod (P10).
    container.pop("restartPolicy", None)
    container.pop("restartPolicyRules", None)


def _set_command(container: Pod, command: Sequence[str], args: Sequence[str]) -> None:
    """What a task container runs, and where its outcome is found: the pod writes to the default path."""
    container["command"] = [*command]
    # The kubelet mounts the file at this path, and `dispatcher.pod` writes to the default one.
    container.pop("terminationMessagePath", None)
    container.pop("args", None)
    if args:
        container["args"] = [*args]


def _env_layer(env: Mapping[str, str]) -> Pod:
    """The variables of a task pod that nobody overrides."""
    message = {
        "name": MESSAGE_ENV,
        # By reference, so that the message stands once in the pod: etcd takes some 1.5 MiB for all of it.
        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{labels.MESSAGE_ANNOTATION}']"}},
    }
    entries = [{"name": name, "value": value} for name, value in env.items() if name != MESSAGE_ENV]
    return {"spec": {"containers": [{"name": merge.BASE, "env": [*entries, message]}]}}


def _termination_room(spec: Mapping[str, Any]) -> dict[str, str]:
    """How much of a termination message the kubelet keeps, where a pod has so many containers that it is less."""
    # The kubelet divides its 12 KiB by all containers that have a status, init containers among them.
    containers = len(spec.get("containers") or ()) + len(spec.get("initContainers") or ())
    room = _TERMINATION_BYTES_OF_POD // containers
    return {TERMINATION_ENV: str(room)} if room < _TERMINATION_BYTES else {}


def _check_message(message: str) -> None:
    size = len(message.encode("utf-8", "surrogatepass"))
    if size > _MAX_MESSAGE_BYTES:
        raise errors.InvalidPod(
            f'pod: metadata.annotations["{labels.MESSAGE_ANNOTATION}"]: the task message has {size} bytes, a pod can '
            f"be given {_MAX_MESSAGE_BYTES}; pass large arguments by reference, such as a path or a key"
        )


def _check_annotations(annotations: Mapping[str, str]) -> None:
    size = sum(len(text.encode("utf-8", "surrogatepass")) for pair in annotations.items() for text in pair)
    if size > _MAX_ANNOTATIONS_BYTES:
        raise errors.InvalidPod(
            f"pod: metadata.annotations: {size} bytes in all, Kubernetes takes {_MAX_ANNOTATIONS_BYTES}; shorten them"
        )
