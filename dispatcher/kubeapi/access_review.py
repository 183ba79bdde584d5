"""Permissions: what the dispatcher must be allowed to do in each namespace, and what of it is missing.

The server is asked at the start (SelfSubjectAccessReview), so that a role that lacks a verb is reported by name and not
by the first task that fails. Called by `controller` and by `podyard config check`.
"""

import asyncio
from collections.abc import Iterable, Sequence

from dispatcher import errors
from dispatcher.kubeapi import client

NEEDED: Sequence[tuple[str, str, str]] = (
    ("create", "pods", ""),
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("patch", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", "log"),
    ("list", "events", ""),
    ("create", "configmaps", ""),
    ("get", "configmaps", ""),
    ("patch", "configmaps", ""),
    ("create", "secrets", ""),
    ("get", "secrets", ""),
    ("patch", "secrets", ""),
)
"""Verb, resource and subresource. `compose/kubernetes/dispatcher-role.yaml` grants exactly these. The Secrets are those
that the dispatcher makes itself, for large or confidential messages; the cluster deletes them with their pods."""


async def missing(cluster: client.KubeClient, *, namespaces: Iterable[str]) -> list[str]:
    """What is not allowed, a line each, such as `tasks: create pods`. Empty where the server cannot be asked that.

    Raises ApiUnavailable.
    """
    # One question per verb: SelfSubjectRulesReview gives all at
    # once, but may be incomplete, as webhook authorizers are.
    asked = [(namespace, *one) for namespace in namespaces for one in NEEDED]
    try:
        answers = await asyncio.gather(
            *(
                cluster.may(verb, resource, namespace=namespace, subresource=subresource)
                for namespace, verb, resource, subresource in asked
            )
        )
    except errors.ApiError as error:
        if error.status in (403, 404, 405):
            return []  # a server without this API, or an account that may not even ask
        raise errors.ApiUnavailable(f"the permissions could not be checked: {error}") from error
    return [
        f"{namespace}: {verb} {resource}{'/' if subresource else ''}{subresource}"
        for (namespace, verb, resource, subresource), is_allowed in zip(asked, answers, strict=True)
        if not is_allowed
    ]
