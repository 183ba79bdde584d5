"""Makes the parts that work on a cluster, from the bottom up: each gets those below it, and none knows one above."""

from dataclasses import dataclass

from dispatcher.admission.capacity import Capacity
from dispatcher.attempts.celery_side import CelerySide, Questions
from dispatcher.attempts.registry import Attempts
from dispatcher.attempts.seen_pods import SeenPods
from dispatcher.background import Background
from dispatcher.finishing.cleanup import Cleanup
from dispatcher.finishing.completion import Completion
from dispatcher.kubeapi import client
from dispatcher.launching.claim_client import Claims
from dispatcher.launching.creation import Creation
from dispatcher.launching.launch_guard import LaunchGuard
from dispatcher.launching.launcher import Launcher
from dispatcher.manifests import labels
from dispatcher.options import Options
from dispatcher.watching.deadlines import Deadlines
from dispatcher.watching.event_hints import EventHints
from dispatcher.watching.lost_pods import LostPods
from dispatcher.watching.ownership import Ownership
from dispatcher.watching.pod_finder import PodFinder
from dispatcher.watching.pod_handler import PodHandler
from dispatcher.watching.reconciler import Executors
from dispatcher.watching.resync import Resync
from dispatcher.watching.takeover import Takeover
from dispatcher.watching.unknown_pods import UnknownPods
from dispatcher.watching.watcher import Watcher


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What outlives a connection to the API server."""

    options: Options
    owner: str
    attempts: Attempts
    celery: CelerySide
    questions: Questions
    claims: Claims | None
    background: Background


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What works once there is an API server."""

    kube: client.KubeClient
    seen_pods: SeenPods
    capacity: Capacity
    launcher: Launcher
    watcher: Watcher
    resync: Resync
    takeover: Takeover
    lost_pods: LostPods | None
    ownership: Ownership
    cleanup: Cleanup
    executors: Executors


def wire(kube: client.KubeClient, shared: Shared, *, limit: int) -> Parts:
    """The parts of one dispatcher; `limit` bounds its pods over all queues."""
    options, owner, attempts = shared.options, shared.owner, shared.attempts
    background, questions = shared.background, shared.questions
    # Anew with each connection, for it tells what this one has listed. Pods that
    # were done with are found again, and cleaned up by their stored outcomes.
    seen_pods = SeenPods()
    capacity = Capacity(kube, options=options, owner=owner, own_limit=limit, attempts=attempts, seen_pods=seen_pods)
    cleanup = Cleanup(kube, options=options, background=background)
    guard = LaunchGuard(shared.claims, questions=questions, attempts=attempts)
    creation = Creation(
        kube, owner=owner, attempts=attempts, admission=capacity.admission, guard=guard, seen_pods=seen_pods
    )
    selector = labels.selector(deployment=options.deployment, owner=owner)
    handler = PodHandler(
        attempts=attempts,
        seen_pods=seen_pods,
        capacity=capacity,
        unknown_pods=UnknownPods(kube, celery=shared.celery, background=background),
    )
    # Only our own pods: another dispatcher's are its own to watch, and one that
    # is taken from us leaves the selector, which the watch shows as DELETED.
    watcher = Watcher(kube, selector=selector, handler=handler, seen_pods=seen_pods)
    url, deployment = options.database_url, options.deployment
    return Parts(
        kube=kube,
        seen_pods=seen_pods,
        capacity=capacity,
        launcher=Launcher(creation, attempts=attempts, admission=capacity.admission, options=options, owner=owner),
        watcher=watcher,
        resync=Resync(kube, owner=owner, selector=selector, attempts=attempts, watcher=watcher),
        takeover=Takeover(
            kube,
            deployment=deployment,
            owner=owner,
            seen_pods=seen_pods,
            shared=capacity.shared,
            questions=questions,
        ),
        lost_pods=LostPods(
            kube, database_url=url, deployment=deployment, owner=owner, attempts=attempts, questions=questions
        )
        if url
        else None,
        ownership=Ownership(kube, owner=owner, questions=questions),
        cleanup=cleanup,
        executors=Executors(
            admission=capacity.admission,
            completion=Completion(
                kube, attempts=attempts, background=background, result_max_bytes=options.result_max_bytes
            ),
            deadlines=Deadlines(
                kube,
                owner=owner,
                attempts=attempts,
                admission=capacity.admission,
                cleanup=cleanup,
                background=background,
            ),
            event_hints=EventHints(kube, attempts=attempts, background=background),
            pod_finder=PodFinder(kube, owner=owner, attempts=attempts, background=background),
        ),
    )
