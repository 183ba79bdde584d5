"""Pod status: what one event about a pod says of the attempt that the pod runs.

Pure, and never raises: what the API server sends is taken as it comes. The base container decides, not the phase,
because a sidecar may outlive the work or fail beside it. Whose failure a reason is says the table of
`dispatcher.status.reasons`. Called for every watch event and every listed pod.

Sources: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dispatcher.manifests import merge
from dispatcher.status import diagnosis, pod_view
from dispatcher.status.reasons import Cause

Verdict = Literal["none", "running", "succeeded", "failed", "gone"]

POD_DELETED = "PodDeleted"
"""The reason, if nothing better is known, of a pod that was deleted under its attempt."""

PROVIDER_FAILED = "ProviderFailed"
"""The reason of a pod that a virtual kubelet has given up, whose phase may go on saying Running."""

# Not ImagePullBackOff: it only waits for the next pull, and ErrImagePull stands between two of them.
FATAL_WAITS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "ErrImagePull", "ImageInspectError", "InvalidImageName"}
)
"""What a container waits for in vain: the pod has failed though its phase is Pending."""

_ONLY_A_WAIT = "pull QPS exceeded"  # the kubelet's own brake; it tries again by itself
_DULL_WAITS = frozenset({"ContainerCreating", "PodInitializing"})
_KILLED = frozenset({137, 143})  # SIGKILL, SIGTERM
_PHASES = frozenset({None, "", "Pending", "Running", "Succeeded", "Failed"})
_DISRUPTED = "DisruptionTarget"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of an attempt after one event about its pod."""

    verdict: Verdict
    reason: str | None = None
    """Why it failed, or what it waits for, in Kubernetes' words."""
    message: str | None = None
    container: str | None = None
    """Which container reason and exit code speak of; None if they speak of the pod."""
    exit_code: int | None = None
    cause: Cause | None = None
    """Whose failure it is; None unless failed."""
    outcome: str | None = None
    """The termination message of the base container as it stands, once that has ended."""
    node: str | None = None
    started_at: str | None = None
    """When the base container started and ended, as the API writes times."""
    ended_at: str | None = None
    is_deleting: bool = False
    """The pod's deletion was requested."""
    is_scheduled: bool = False
    """A node was found for it."""
    memory: pod_view.Memory = pod_view.NO_MEMORY
    """Of the base container, where that was killed for its memory."""


def observe(pod: Mapping[str, Any], event_type: str = "MODIFIED", *, base: str = merge.BASE) -> Observation:
    """The verdict on a pod as the API server sent it, in a watch event of `event_type` or in a list.

    `base` is the name of the container that decides.
    """
    if event_type in ("BOOKMARK", "ERROR") or not isinstance(pod, Mapping):
        return Observation(verdict="none")
    facts = pod_view.PodView.of(pod, base=base)
    seen = _verdict(facts, is_deleted=event_type == "DELETED")
    task = facts.base
    return replace(
        seen,
        outcome=task.message if task and task.state == "terminated" else None,
        node=facts.node,
        started_at=task.started_at if task else None,
        ended_at=task.ended_at if task else None,
        is_deleting=facts.is_deleting,
        is_scheduled=facts.condition("PodScheduled", "True") is not None,
        # Only then: the next attempt gets more memory by it, and
        # a growth on suspicion would hide other kills (ADR 7).
        memory=facts.memory if seen.reason == "OOMKilled" and seen.container == base else pod_view.NO_MEMORY,
    )


def _verdict(facts: pod_view.PodView, *, is_deleted: bool) -> Observation:
    """The first verdict that holds."""
    # First: a sidecar that fails makes the phase Failed though the work is done (P22, P23).
    if facts.base and facts.base.state == "terminated":
        return _ended(facts, facts.base)
    # A virtual kubelet that gives a pod up writes the reason, and may leave the phase as it was.
    if facts.phase == "Failed" or facts.reason == PROVIDER_FAILED:
        return _failed_phase(facts)
    # A deletion that has run its course, or a phase of which no
    # container knows: without containers a node has never reported.
    if facts.is_deleting and (is_deleted or (facts.phase == "Succeeded" and not facts.base)):
        return _deleted(facts, None)
    if facts.phase == "Succeeded" and not facts.base:
        return Observation(verdict="succeeded")
    # Once the task container runs, a sidecar that waits in vain does not stop it.
    fatal = None if facts.is_base_running or facts.phase not in _PHASES else _fatal_wait(facts)
    if fatal:
        return _failed(facts, fatal)
    # DELETED without a deletion timestamp: it has left our selector,
    # since its labels changed, or it was removed by force.
    if is_deleted:
        return Observation(verdict="gone")
    if facts.is_base_running and facts.phase in _PHASES:
        return Observation(verdict="running", container=facts.base.name if facts.base else None)
    return _waiting(facts)


def _ended(facts: pod_view.PodView, base: pod_view.Container) -> Observation:
    """The base container has ended: its exit code counts, unless the deletion of the pod made it."""
    interrupted = facts.was_interrupted(base)
    # 137 and 143 are what a deletion makes of any program; before it was requested they are somebody else's kill.
    if interrupted and (base.exit_code in _KILLED or base.exit_code is None):
        return _deleted(facts, base)
    if base.exit_code == 0:
        # Exit 0 on SIGTERM is how many programs stop half way; a termination message says that the work was done.
        if interrupted and not (base.message or "").strip():
            return _deleted(facts, base)
        return Observation(
            verdict="succeeded", reason=base.reason, message=base.message, container=base.name, exit_code=0
        )
    return _failed(facts, base)


def _failed_phase(facts: pod_view.PodView) -> Observation:
    """The pod has failed and its base container has not ended: it never started, or its node does not know."""
    broken = (init for init in facts.inits if init.state == "terminated" and init.exit_code != 0)
    culprit = next(broken, None)
    if facts.is_deleting and (culprit is None or (facts.was_interrupted(culprit) and culprit.exit_code in _KILLED)):
        return _deleted(facts, culprit)
    return _failed(facts, culprit or _fatal_wait(facts) or _first_wait(facts))


def _deleted(facts: pod_view.PodView, container: pod_view.Container | None) -> Observation:
    """Somebody or something deleted the pod under its attempt."""
    reason, message = _disruption(facts)
    pod_cause = diagnosis.cause_of(facts.reason, message=facts.message or "")
    return Observation(
        verdict="failed",
        # From the one who knows most: the pod's own word (Evicted), the disruption that was announced, the mere fact.
        reason=facts.reason or reason or POD_DELETED,
        message=facts.message or message or "the pod was deleted before its task had ended",
        container=container.name if container else None,
        exit_code=container.exit_code if container else None,
        # The kubelet's DeadlineExceeded deletes nothing, but a
        # pod may be deleted after it: then it stays the author's.
        cause="application" if facts.phase == "Failed" and pod_cause == "application" else "infrastructure",
    )


def _failed(facts: pod_view.PodView, culprit: pod_view.Container | None) -> Observation:
    """A failure with its reason: the pod's own wins over a disruption's, that over the container's."""
    disruption, disruption_message = _disruption(facts)
    return Observation(
        verdict="failed",
        reason=facts.reason or disruption or (culprit.reason if culprit else None),
        message=facts.message or disruption_message or (culprit.message if culprit else None),
        container=culprit.name if culprit else None,
        exit_code=culprit.exit_code if culprit else None,
        cause=diagnosis.cause_of(facts.reason, message=facts.message or "")
        or ("infrastructure" if disruption else _container_cause(culprit)),
    )


def _container_cause(container: pod_view.Container | None) -> Cause:
    """What is waited for in vain, and an exit code that is not 0, are the author's unless the table says otherwise."""
    if container is None:
        return "unknown"
    text = (container.message or "").replace(container.image or "\0", "")  # an image may be named rate-limiter
    is_waiting = container.state == "waiting" and container.reason not in _DULL_WAITS
    blamed = is_waiting or bool(container.exit_code)
    return diagnosis.cause_of(container.reason, message=text) or ("application" if blamed else "unknown")


def _disruption(facts: pod_view.PodView) -> tuple[str | None, str | None]:
    """Reason and message of a disruption that the cluster announced."""
    condition = facts.condition(_DISRUPTED, "True")
    if condition is None:
        return None, None
    return condition.reason or _DISRUPTED, condition.message


def _fatal_wait(facts: pod_view.PodView) -> pod_view.Container | None:
    """The first container that waits in vain."""
    for container in facts.containers():
        # Braked pulls have the reason ErrImagePull like those that failed; only the text tells them apart.
        if container.state == "waiting" and container.reason in FATAL_WAITS and container.message != _ONLY_A_WAIT:
            return container
    return None


def _first_wait(facts: pod_view.PodView) -> pod_view.Container | None:
    """The container that waits for something, one that says for what before others."""
    waits = [container for container in facts.containers() if container.state == "waiting" and container.reason]
    telling = [container for container in waits if container.reason not in _DULL_WAITS]
    # Where all say only ContainerCreating or PodInitializing, the task container is the one that people ask for.
    return next(iter((*telling, *(wait for wait in waits if wait is facts.base), *waits)), None)


def _waiting(facts: pod_view.PodView) -> Observation:
    """Nothing is known yet but what the pod waits for."""
    unscheduled = facts.condition("PodScheduled", "False")
    # Before the containers, which have no status as long as there is no node.
    if unscheduled:
        return Observation(verdict="none", reason=unscheduled.reason, message=unscheduled.message)
    container = _first_wait(facts)
    if container is not None:
        return Observation(verdict="none", reason=container.reason, message=container.message, container=container.name)
    return Observation(verdict="none", reason=facts.reason, message=facts.message)
