"""How things may be called: labels, subdomains, qualified names, keys; name -> causes. Pure.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

import re
from collections.abc import Iterator, Mapping

from dispatcher.localcluster.objects import causes
from dispatcher.localcluster.objects.refusal import Cause

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_VALUE}')"
)
_NAME_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    f"'{_QUALIFIED}')"
)
_KEY_WORDS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


def label(field: str, name: str) -> Iterator[Cause]:
    """A DNS label: containers, volumes, namespaces."""
    if not name:
        yield causes.required(field)
        return
    if len(name) > 63:
        yield causes.invalid(field, name, "must be no more than 63 characters")
    if not re.fullmatch(_LABEL, name):
        yield causes.invalid(field, name, _LABEL_WORDS)


def subdomain(field: str, name: str) -> Iterator[Cause]:
    """A DNS subdomain: most objects."""
    if len(name) > 253:
        yield causes.invalid(field, name, "must be no more than 253 characters")
    if not re.fullmatch(_SUBDOMAIN, name):
        yield causes.invalid(field, name, _SUBDOMAIN_WORDS)


def qualified(field: str, key: str) -> Iterator[Cause]:
    """A name with an optional prefix: keys of labels and annotations, taints, resources."""
    prefix, slash, name = key.rpartition("/")
    if slash and not re.fullmatch(_SUBDOMAIN, prefix):
        yield causes.invalid(field, key, f"prefix part {_SUBDOMAIN_WORDS}")
    if not re.fullmatch(_QUALIFIED, name):
        yield causes.invalid(field, key, _NAME_WORDS)
    elif len(name) > 63:
        yield causes.invalid(field, key, "name part must be no more than 63 characters")


def label_value(field: str, value: str) -> Iterator[Cause]:
    """The value of a label."""
    if len(value) > 63:
        yield causes.invalid(field, value, "must be no more than 63 characters")
    if not re.fullmatch(_VALUE, value):
        yield causes.invalid(field, value, _VALUE_WORDS)


def labels(field: str, found: Mapping[str, str]) -> Iterator[Cause]:
    """Keys and values."""
    for key, value in found.items():
        yield from qualified(field, key)
        yield from label_value(field, value)


def config_key(field: str, key: str) -> Iterator[Cause]:
    """A key of a ConfigMap or Secret."""
    if len(key) > 253:
        yield causes.invalid(field, key, "must be no more than 253 characters")
    if not re.fullmatch(r"[-._a-zA-Z0-9]+", key):
        yield causes.invalid(field, key, _KEY_WORDS)
    elif key in {".", ".."} or key.startswith(".."):
        yield causes.invalid(field, key, "must not be '.', '..', or start with '..'")
