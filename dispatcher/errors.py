"""Errors and outcomes of the dispatcher.

DispatcherError                    about us: something that we were given cannot be used
├── InvalidTemplate                a pod template cannot be read or breaks a rule
├── InvalidOverride                an override cannot be merged
├── InvalidPod                     the final manifest may not be launched
├── MissingExtra                   a package of a part is not installed
├── StoreUnavailable               the pods' table cannot be read or written now
├── ApiError                       the API server answered with an error status
└── ApiUnavailable                 the API server gave no answer: nothing is known of the call's effect
PodFailed                          about the author's pod: how it ended; stored as the task's result
└── PodSkipped                     its exit code says that there was nothing to do: a DAG's task is skipped

Errors that never leave the package stand beside the code that raises them:

IllegalMoveError                   `attempts.states`: a move that the table of states does not know
ReplayAgain                        `worker.sending`: a replay ends here and has to come again; no `Exception`
Unusable                           `kubeapi.answers`: the API server's answer is not what it should be
WrongField                         `manifests.pod_schema`: a field that the schema does not know, or of another type
UnreadableFile                     `manifests.safe_yaml`: a file that is not YAML, or not one document
UnreadableOutcome                  `protocol.outcome`: bytes that are no outcome
"""

from collections.abc import Mapping
from typing import Any


class DispatcherError(Exception):
    """Something that the dispatcher was given cannot be used."""


class InvalidTemplate(DispatcherError, ValueError):
    """A pod template cannot be read or breaks a rule; the message names path, field and what is wrong."""


class InvalidOverride(DispatcherError, ValueError):
    """An override cannot be merged; the message names the path inside the override."""


class InvalidPod(DispatcherError, ValueError):
    """The final manifest may not be launched; the message names the path and the rule."""


class MissingExtra(DispatcherError, ImportError):
    """A package that a part needs is not installed; the message ends with the command that installs it."""


class StoreUnavailable(DispatcherError):
    """The pods' table cannot be read or written now; the dispatcher goes on without it."""


class ApiError(DispatcherError):
    """The API server answered with an error status; `reactions.react` says what follows from it.

    `status` is the HTTP status, `reason` Kubernetes' machine-readable reason (`AlreadyExists`, `Forbidden`, …),
    `retry_after_s` the server's `Retry-After` in seconds, or None.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class ApiUnavailable(DispatcherError):
    """The API server gave no answer in time: a create may have succeeded, so it is repeated under the same name.

    `was_sent` is false where not even a connection was made: then nothing was done.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class PodFailed(Exception):
    """A pod ended without success. As text it is one line; `details` are for programs.

    They may hold reason, exit_code, cause, pod, node (with `is_of_node` where that is at fault), container,
    memory_limit and memory_request, a message of many lines; and always `explanation` and `what_to_do`, sentences for
    people (docs/reasons.md).
    """

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        # Both as arguments: result backends make an exception again from its `args`.
        super().__init__(message, dict(details or {}))
        self.message = message
        self.details = dict(details or {})

    def __str__(self) -> str:
        """Only the message, in one line: details are for programs."""
        return " ".join(self.message.splitlines())


class PodSkipped(PodFailed):
    """A pod ended with an exit code that its sender takes for "nothing to do" (`skip_on_exit_code`).

    A DAG's task is skipped. A plain Celery task has no such state: there it is a failure of this class.
    """
