"""Redaction: what people may see of values that may hold a credential. The only place that decides it. No I/O, no
state.

`hide` is for everything that is shown: settings, values in errors, variables of a pod. Rather too much is hidden than
too little: a value is shown only if neither its name nor its text looks like a secret. In a URL only the secret parts
are hidden, since its host is what people look for; of other texts nothing is shown. What stands in commands and
arguments of containers is not looked at: `kubectl describe` shows it to the same people.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

from dispatcher.manifests import labels

HIDDEN = "•••"

_WORDS = r"pass|pwd|secret|token|key|credential|auth(?!or)|cookie|signature|\bsig\b|\bsas\b|private"
_SECRET_NAME = re.compile(rf"{_WORDS}|dsn|conn(?!ect_?timeout)|webhook", re.IGNORECASE)
_AUTHORITY = re.compile(r"(https?)?://([^/?#\s:@]*)(:?)(.*)@", re.DOTALL | re.IGNORECASE)
_PARAMETER = re.compile(rf"([?&;#][^=&;#?\s]*(?:{_WORDS})[^=&;#?\s]*=)(?:(?!{HIDDEN})[^&;#]+)", re.IGNORECASE)
_DIGEST = re.compile(r"@sha\d+:[0-9a-f]+", re.ASCII)
_WITHOUT_SCHEME = re.compile(r":[^\s@]+@|^[^@]*:[^@]*@", re.DOTALL)
"""`user:password@host`, where the scheme was forgotten or is not written, as in a MySQL DSN of Go."""
_SECRET_TEXT = re.compile(
    rf"""(?:{_WORDS}) [\w.\-]* ["'\])]* \s* [=:] \s* (?!\s|{HIDDEN}|$)      # password=…, "token": "…", Authorization: …
    | (?:^|\s) --? [\w.\-]* (?:{_WORDS}) [\w.\-]* \s+ \S                    # --password …
    | \b (?:password|passwd|secret|token) \s+ \S                            # machine h login u password …
    | \b (?:bearer|basic|digest|negotiate) \s+ [\w+/=.~\-]{{6}}             # Bearer …
    | -----BEGIN\s
    | \b (?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|npm_|pypi-|dop_v1_|hv[sb]\.|AIza|sk[-_]) [\w\-]{{10}}
    | \b (?:AKIA|ASIA) [0-9A-Z]{{12}}
    | \b eyJ [\w\-]+ \. [\w\-]+ \.                                          # a JSON web token
    | hooks\.slack\.com/""",
    re.IGNORECASE | re.VERBOSE,
)


def hide(value: Any, *, name: str = "") -> Any:
    """The value as people may see it; tables and lists entry by entry. `name` is what it is called, as far as known."""
    if isinstance(value, Mapping):
        return {key: hide(one, name=str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [hide(one, name=name) for one in value]
    # An empty secret and a switch betray nothing, and hiding them would hide that nothing is set.
    if value is None or value == "" or isinstance(value, bool):
        return value
    if _SECRET_NAME.search(name):
        # A URL under a secret's name still shows its host; what does not look like one shows nothing.
        return hide_text(value) if isinstance(value, str) and hide_text(value) != value else HIDDEN
    return hide_text(value) if isinstance(value, str) else value


def hide_text(text: str) -> str:
    """The text without its secrets: a URL without its credentials, HIDDEN for another text that has some."""
    # The credentials before the `@` first: a password may hold
    # `?` and `&`, which the parameters' pattern would cut at.
    shown = _PARAMETER.sub(rf"\1{HIDDEN}", _AUTHORITY.sub(_userinfo, text)) if "://" in text else text
    # What was hidden already, and digests of images (`@sha256:…`), must not be taken for another secret.
    without_urls = re.sub(rf"://\S*{HIDDEN}@", "://", _DIGEST.sub("", shown))
    if _SECRET_TEXT.search(without_urls) or _WITHOUT_SCHEME.search(without_urls):
        return HIDDEN
    return shown


def hide_pair(text: str) -> str:
    """`user:password` without the password; of what is no pair, nothing."""
    user, separator, _ = text.partition(":")
    return f"{user}:{HIDDEN}" if separator else HIDDEN


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable may be a secret, by its name or by its value."""
    return bool(hide(value, name=name) != value)


def redacted(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a pod manifest without the values that look like secrets, and with its task message shortened."""
    pod: dict[str, Any] = copy.deepcopy(dict(manifest))
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    message = annotations.get(labels.MESSAGE_ANNOTATION)
    if message is not None:
        annotations[labels.MESSAGE_ANNOTATION] = f"{HIDDEN} ({len(str(message).encode())} bytes)"
    spec = pod.get("spec") or {}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        # Only literal values: what comes by `valueFrom` is not in the manifest.
        for entry in container.get("env") or ():
            if entry.get("value"):
                entry["value"] = hide(str(entry["value"]), name=str(entry.get("name")))
    return pod


def _userinfo(found: re.Match[str]) -> str:
    """What is shown of everything up to the last `@`: the user, if there is a password beside it.

    Over HTTP a token may stand in the user's place (`https://TOKEN:x-oauth-basic@host`).
    """
    http, user, colon, password = found.groups()
    if http or not colon or not password:
        return f"{http or ''}://{HIDDEN}@"
    return f"://{user}:{HIDDEN}@"
