"""Errors and outcomes of the authors' side.

RoutingError                       about us: something that we were given cannot be used
├── InvalidDag                     a DAG file breaks a rule of the authors' API
└── EmbeddedError                  `standalone.part_errors`: a part of `podyard standalone` cannot be started
TaskFailed                         about the author's task: how its body ended; stored as the task's result

Errors of one part stand beside the code that raises them:

RecordError                        `store.store_errors`: the record cannot do what was asked
├── SchemaError                    the database does not fit this code
├── DatabaseUnavailable            it cannot be reached, or was busy for too long: wait and try again
├── Conflict                       rows were not as this process remembered them: read again and try again
└── LeaseLost                      another process has taken over the role: stop acting
ResultsUnavailable                 `results.collector`: the result backend cannot be reached
BrokerUnavailable                  `scheduling.sender`: the broker does not take messages
InvalidRules                       `router`: rules of queues that cannot be used
SettingsError                      `config.settings`: settings that cannot be used, all of them at once
Unreadable                         `config.files`: a file of settings that cannot be read
Failure                            `cli.failure`: how a command ends that failed, with one line for people

Light: it is imported inside every pod.
"""

from collections.abc import Mapping
from typing import Any


class RoutingError(Exception):
    """Something that Podyard was given cannot be used."""


class InvalidDag(RoutingError, ValueError):
    """A DAG file breaks a rule of the authors' API; the message names DAG, task and parameter, and what to do."""

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        """In the DAG file, where the mistake was found only after that line was executed."""


class TaskFailed(Exception):
    """A task's body ended without success. `details` may hold reason, exit_code and cause."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, dict(details or {}))
        self.message = message
        self.details = dict(details or {})

    def __str__(self) -> str:
        """Only the message: details are for programs."""
        return self.message
