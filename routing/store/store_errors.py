"""Errors of the record.

RecordError                        the record cannot do what was asked; the message says what to do
├── SchemaError                    the database does not fit this code
├── DatabaseUnavailable            it cannot be reached, or was busy for too long: wait and try again
├── Conflict                       rows were not as this process remembered them: read again and try again
└── LeaseLost                      another process has taken over the role: stop acting
"""


class RecordError(Exception):
    """The record cannot do what was asked."""


class SchemaError(RecordError):
    """The database does not fit this code."""


class DatabaseUnavailable(RecordError):
    """The database cannot be reached, or was busy for too long."""


class Conflict(RecordError):
    """A guarded UPDATE found other states than it may leave; nothing of its transaction was kept."""


class LeaseLost(RecordError):
    """Another process acts in this role now."""
