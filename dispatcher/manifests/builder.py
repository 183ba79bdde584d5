"""From a task message to the manifest that is sent: the one path for launching and for rendering. ④ of the flow.

`build` finds the template, reads the sender's options and the queue's profile, and calls `podspec.build_pod`, which is
pure. `key_of` and `message_of` read a pod's identity back. No network.
"""

import functools
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dispatcher import errors, policy
from dispatcher.manifests import (
    container_pod,
    container_pod_options,
    labels,
    merge,
    message_secret,
    podspec,
    result_sidecar,
    retry_hints,
    template,
    workload,
)
from dispatcher.options import Options, QueueProfile
from dispatcher.protocol.message import Message

ANY_IMAGE_TASK = "dispatcher.pod"
"""The Celery task whose whole body is a pod of any image."""
JUDGED_BY_EXIT_CODE = frozenset({ANY_IMAGE_TASK, workload.TASK})
"""Tasks whose pods leave no outcome: the exit code of the container says how they ended."""
COMMAND = ("python", "-m", "dispatcher.pod")
START_ALLOWANCE_S = 600
"""Added to a hard time limit for the cluster's own deadline, which counts from before images are pulled."""
_TEMPLATES = template.Templates()
_BARE_POD: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "replaced-at-launch"},
    "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False},
}
"""What a pod of any image starts from. The queue's template is for task pods: it names a user and an image of ours."""


def build(
    message: Message,
    *,
    profile: QueueProfile,
    options: Options,
    owner: str,
    task_options: Mapping[str, Any] | None = None,
    deadline_s: float | None = None,
    soft_limit_s: float | None = None,
) -> dict[str, Any]:
    """The manifest of the pod for one message: what is launched, and what `podyard dags render` shows.

    `task_options` are those of the task itself (`pod_override`, `pod_template_file`); what the call asks for wins over
    them. `deadline_s` is the hard time limit, which a task's pod keeps itself, counted from the body's begin; the
    cluster ends the pod some time after it, should nobody else do so. `soft_limit_s` is passed to the body.

    Raises InvalidTemplate, InvalidOverride or InvalidPod, each naming the path and what to do, and DispatcherError for
    a hook that cannot be imported.
    """
    # The call over the task, key by key; but the overrides of both count, laid over each other below.
    requested = {**(task_options or {}), **message.requested}
    text = message.encode()
    # A workload carries a token of Airflow's API, so it stands in no annotation whatever the queue says.
    always = "secret" if message.name == workload.TASK else profile.payload
    # A container task's arguments are its manifest, which stands
    # in the pod anyway; and nothing in it could read the Secret.
    is_secret = message.name != ANY_IMAGE_TASK and message_secret.is_secret(text, profile_payload=always)
    common: dict[str, Any] = {
        "identity": podspec.Identity(
            deployment=options.deployment,
            attempt_id=message.id,
            retries=message.retries,
            replaced=message.replaced,
            queue=message.queue,
            task=message.name,
            owner=owner,
            message=message_secret.stub(message).encode() if is_secret else text,
            # JSON makes a list of it.
            name=tuple(requested.get("name") or (message.name,)),
        ),
        "labels": requested.get("labels") or {},
        # Of the message alone: what earlier attempts teach is the scheduler's to say, not the task's own options.
        "hints": retry_hints.RetryHints.read(message.requested.get(retry_hints.KEY)),
        "hook": imported_hook(options.pod_mutation_hook) if options.pod_mutation_hook else None,
    }
    if message.name == ANY_IMAGE_TASK:
        pod = _any_image(message, profile=profile, options=options, common=common)
    else:
        layers = [(task_options or {}).get("pod_override"), message.requested.get("pod_override")]
        limits = {podspec.TIME_LIMIT_ENV: deadline_s, podspec.SOFT_TIME_LIMIT_ENV: soft_limit_s}
        make: Callable[..., dict[str, Any]] = functools.partial(_task_pod, limits=limits)
        if message.name == workload.TASK:
            workload.text_of(message)  # what holds none fails here, before it waits
            layers.append(workload.layer(common["identity"].pod_name))
            make = _workload_pod
        elif is_secret:
            layers.append(message_secret.layer(common["identity"].pod_name))
        pod = make(requested, layers=layers, profile=profile, options=options, common=common)
    if deadline_s is not None:
        # An own `activeDeadlineSeconds` of template or override stays. The API takes integers only.
        pod["spec"].setdefault("activeDeadlineSeconds", math.ceil(deadline_s) + START_ALLOWANCE_S)
    # Last: the policy judges what is sent, whoever of template, override, hook or sender put it in.
    policy.check(pod, options.policy, namespaces=(profile.namespace,))
    return pod


def _task_pod(
    requested: Mapping[str, Any],
    *,
    layers: Sequence[Any],
    profile: QueueProfile,
    options: Options,
    common: Mapping[str, Any],
    limits: Mapping[str, float | None],
) -> dict[str, Any]:
    """A pod that runs the message's task."""
    env = {"PODYARD_APP": options.app_path, "PODYARD_RESULT_MAX_BYTES": str(options.result_max_bytes)}
    # Nothing for a limit that is not set: the pod then looks at its message and its task.
    env |= {name: str(seconds) for name, seconds in limits.items() if seconds}
    if options.include:
        env[podspec.INCLUDE_ENV] = ",".join(options.include)
    if profile.credentials != "none":
        env["PODYARD_CREDENTIALS"] = profile.credentials
    # The last layer is ours, where there is one: no author can come after it.
    if message_secret.is_layered(layers[-1]):
        env[podspec.MESSAGE_FILE_ENV] = message_secret.FILE
    return podspec.build_pod(
        **common,
        template=_TEMPLATES.get(requested.get("pod_template_file") or profile.template),
        # The Secret is the lowest layer: it only adds, for `env` wins over `envFrom` in the kubelet.
        override=[_secret_env(profile), *layers],
        image=profile.image or options.image,
        # The uppermost layer that names one; `podspec` refuses a layer
        # below that names another, the policy what is not allowed.
        namespace=next(filter(None, map(_namespace_in, reversed(layers))), None) or profile.namespace,
        command=COMMAND,
        # Ours after the queue's: a queue's `env` cannot say which application a pod runs.
        env={**profile.env, **env},
    )


def _workload_pod(
    requested: Mapping[str, Any],
    *,
    layers: Sequence[Any],
    profile: QueueProfile,
    options: Options,
    common: Mapping[str, Any],
) -> dict[str, Any]:
    """A pod that runs a workload of Airflow; its image has no Podyard, so nothing of ours stands in its environment."""
    return podspec.build_pod(
        **common,
        template=_TEMPLATES.get(requested.get("pod_template_file") or profile.template),
        override=layers,
        image=profile.image or options.image,
        namespace=next(filter(None, map(_namespace_in, reversed(layers))), None) or profile.namespace,
        command=workload.COMMAND,
        args=(workload.FILE,),
        env=profile.env,
        has_message=False,
    )


def _secret_env(profile: QueueProfile) -> dict[str, Any] | None:
    """The layer that gives a pod the keys of a Secret as environment, where its queue says so."""
    if profile.credentials == "none" or not profile.credentials_secret:
        return None
    source = {"secretRef": {"name": profile.credentials_secret}}
    return {"spec": {"containers": [{"name": merge.BASE, "envFrom": [source]}]}}


def _any_image(
    message: Message, *, profile: QueueProfile, options: Options, common: Mapping[str, Any]
) -> dict[str, Any]:
    """A pod that is all the sender's: `container_pod` says what may be asked for."""
    if message.args:
        raise errors.InvalidPod("dispatcher.pod: takes its arguments by name, such as image='busybox'")
    wanted = container_pod.read(message.kwargs)
    _check_cluster(wanted.cluster, options)
    base = wanted.options.base
    lower = _template_of(wanted, message.requested)
    _check_base(lower, base)
    upper = merge.overlay(dict(wanted.override), merge.plain_override(message.requested.get("pod_override"), base=base))
    if wanted.options.result_path is not None:
        for part in (lower, upper):
            result_sidecar.check(part, path=wanted.options.result_path, base=base)
        sidecar = result_sidecar.build(
            path=wanted.options.result_path,
            image=options.xcom_sidecar_image,
            max_bytes=options.result_max_bytes,
            base=base,
            security_context=wanted.sidecar_security_context,
        )
        merge.overlay(upper, sidecar)
    identity = common["identity"]
    if wanted.name:
        identity = replace(identity, name=(wanted.name,))
    return podspec.build_pod(
        **{**common, "identity": identity, "labels": {**wanted.labels, **common["labels"]}},
        template=lower,
        override=upper,
        namespace=wanted.namespace or _namespace_in(upper) or _namespace_in(lower) or profile.namespace,
        command=None,
        base=base,
    )


def _template_of(wanted: container_pod.PodRequest, requested: Mapping[str, Any]) -> Mapping[str, Any]:
    """The lowest layer: a file wins over a mapping in the arguments. What it leaves open is closed: no API token."""
    file = wanted.template_file or requested.get("pod_template_file")
    # `base=None`: such a template may be a part of a pod, which the arguments complete.
    given = _TEMPLATES.get(str(file), base=None) if file else wanted.template
    return merge.merge_pod(_BARE_POD, given)


def _check_base(pod: Mapping[str, Any], base: str) -> None:
    """A template whose containers are all strangers would run beside the task container, not be it."""
    named = [container.get("name") for container in (pod.get("spec") or {}).get("containers") or ()]
    if named and base not in named:
        raise errors.InvalidTemplate(
            f"pod template: spec.containers: none is named {base!r}, which decides; name one so, or say "
            f"base_container_name={named[0]!r}"
        )


def _namespace_in(pod: Any) -> str | None:
    """The namespace that a mapping or a `V1Pod` names."""
    metadata = pod.get("metadata") if isinstance(pod, Mapping) else getattr(pod, "metadata", None)
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else getattr(metadata, "namespace", None)
    return namespace if isinstance(namespace, str) and namespace else None


def _check_cluster(wanted: container_pod.ClusterRequest, options: Options) -> None:
    """An author may name the cluster, but a dispatcher has one."""
    remedy = "a dispatcher has one cluster: run another one with these settings for a queue of its own"
    if wanted.kubeconfig and Path(wanted.kubeconfig).expanduser() != options.kubeconfig:
        raise errors.InvalidPod(
            f"dispatcher.pod: config_file: is {wanted.kubeconfig}, the dispatcher's kubernetes.kubeconfig is "
            f"{options.kubeconfig or 'not set'}; {remedy}"
        )
    if wanted.context and wanted.context != options.context:
        raise errors.InvalidPod(
            f"dispatcher.pod: cluster_context: is {wanted.context!r}, the dispatcher's kubernetes.context is "
            f"{options.context or 'not set'}; {remedy}"
        )
    # Not said by one of them is no contradiction.
    if None not in (wanted.in_cluster, options.in_cluster) and wanted.in_cluster != options.in_cluster:
        raise errors.InvalidPod(f"dispatcher.pod: in_cluster: is not what the dispatcher's settings say; {remedy}")


@functools.cache
def imported_hook(path: str) -> podspec.Hook:
    """The function that `kubernetes.pod_mutation_hook` names. Raises DispatcherError."""
    # Both spellings: `module:name` as Celery writes it, and Python's dotted path.
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        hook = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs a site's code, which may raise anything
        raise errors.DispatcherError(
            f"kubernetes.pod_mutation_hook = {path!r}: cannot be imported: {type(error).__name__}: {error}; "
            "write module:function, and put the module where the dispatcher finds it (PYTHONPATH)"
        ) from error
    if not callable(hook):
        raise errors.DispatcherError(f"kubernetes.pod_mutation_hook = {path!r}: is not a function")
    return hook  # type: ignore[no-any-return]


def pod_options_of(message: Message) -> container_pod_options.PodOptions:
    """What a sender asked for around the pod; what cannot be read was refused when the pod was built."""
    if message.name != ANY_IMAGE_TASK:
        return container_pod_options.PodOptions()
    try:
        return container_pod_options.read(message.kwargs)
    except errors.InvalidPod:
        return container_pod_options.PodOptions()


def message_of(pod: Mapping[str, Any]) -> Message:
    """The task message that a pod carries. Raises ValueError where it carries none that can be read."""
    annotations = pod.get("metadata", {}).get("annotations") or {}
    text = annotations.get(labels.MESSAGE_ANNOTATION)
    if not text:
        raise ValueError("the pod carries no task message")
    return Message.decode(text)
