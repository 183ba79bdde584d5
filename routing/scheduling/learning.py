"""Learning: what a failed attempt teaches the pod of the next one, where its queue says so. Pure."""

from dispatcher.manifests.retry_hints import MAX_GROWTHS, RetryHints
from dispatcher.options import QueueProfile
from routing.results import reported

# The kubelet's reason of a container that exceeded its own limit; a node that ran out of memory evicts (P2, P3).
OUT_OF_MEMORY = "OOMKilled"


def after_growth(known: RetryHints, ended: reported.EndReport, profile: QueueProfile) -> RetryHints | None:
    """What is known once memory has grown; None where this end, the queue or the cap does not let it grow.

    Only an end that says what memory the task container had counts: then it was that container that was killed.
    """
    # Exit code 137 alone is not enough: it may be anybody's kill, and more memory would hide who it was (ADR 7).
    if profile.memory_growth is None or profile.memory_growth_max is None or ended.reason != OUT_OF_MEMORY:
        return None
    known_facts = ended.diagnosis or {}
    return known.without_memory(
        request=known_facts.get("memory_request"),
        limit=known_facts.get("memory_limit"),
        factor=profile.memory_growth,
        at_most=profile.memory_growth_max,
    )


def why_no_growth(ended: reported.EndReport, profile: QueueProfile) -> str:
    """What ends the sentence on a task that failed for its memory, though memory of its queue grows; else nothing."""
    if profile.memory_growth is None or ended.reason != OUT_OF_MEMORY:
        return ""
    return f"; memory of its queue grows to {profile.memory_growth_max}, at most {MAX_GROWTHS} times"


def after_node(known: RetryHints, ended: reported.EndReport, profile: QueueProfile) -> RetryHints:
    """What is known after a fault of the infrastructure: a node that was at fault is avoided from now on."""
    known_facts = ended.diagnosis or {}
    if not profile.avoid_failed_nodes or not known_facts.get("is_of_node") or not known_facts.get("node"):
        return known
    return known.without_node(known_facts["node"])


def memory_words(known: RetryHints) -> str:
    """How much the next pod gets, for people."""
    return known.memory_limit or known.memory_request or "more memory"
