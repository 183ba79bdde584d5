"""Paths inside a container -> real paths: processes have no mount points, so the text of the pod is rewritten. Pure."""

import re
from collections.abc import Mapping

_BEFORE = r"(?<![\w./-])"
_AFTER = r"(?![\w.-])"


def rewrite(text: str, paths: Mapping[str, str]) -> str:
    """Replaces each whole occurrence of a mounted path, longest first; `/data` does not touch `/database`."""
    if "/" not in text or not paths:
        return text
    longest_first = sorted(paths, key=len, reverse=True)
    pattern = _BEFORE + "(" + "|".join(re.escape(path) for path in longest_first) + ")" + _AFTER
    return re.sub(pattern, lambda found: paths[found[1]], text)
