"""Text from people and pods, made harmless for a terminal: no control characters, no turned direction. Pure."""

import re

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def lines(text: str) -> str:
    """The text with its lines and tabs, without anything else that steers a terminal."""
    # A lone carriage return would write over the beginning of its own line.
    text = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _CONTROL.sub("", text)


def line(text: str) -> str:
    """The same as one line: white space of any kind becomes one space."""
    return " ".join(lines(text).split())


def json_text(text: str) -> str:
    """JSON in which such characters stand as escapes: the value is the same, the terminal is safe."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
