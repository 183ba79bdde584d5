"""Errors and outcomes of the dispatcher.

    DispatcherError                    about us: something that we were given cannot be used
    ├── InvalidTemplate                a pod template cannot be read or breaks a rule
    ├── InvalidOverride                an override cannot be merged
    └── InvalidPod                     the final manifest may not be launched
    PodFailed                          about the author's pod: how it ended; stored as the task's result
"""

from collections.abc import Mapping
from typing import Any


class DispatcherError(Exception):
    """Something that the dispatcher was given cannot be used."""


class InvalidTemplate(DispatcherError, ValueError):  # noqa: N818 - the name is public and says what is invalid
    """A pod template cannot be read or breaks a rule; the message names path, field and what is wrong."""


class InvalidOverride(DispatcherError, ValueError):  # noqa: N818 - as above
    """An override cannot be merged; the message names the path inside the override."""


class InvalidPod(DispatcherError, ValueError):  # noqa: N818 - as above
    """The final manifest may not be launched; the message names the path and the rule."""


class PodFailed(Exception):  # noqa: N818 - an outcome, not an error of ours
    """A pod ended without success. `details` may hold reason, exit_code, cause, pod, node and container."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, dict(details or {}))
        self.message = message
        self.details = dict(details or {})

    def __str__(self) -> str:
        """Only the message: details are for programs."""
        return self.message
