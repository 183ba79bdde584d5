"""The child process that renders templates for the scheduler, one request a line, until its input ends.

`python -m routing.authoring.renderchild`, started by `routing.scheduling.renderer`. What an author writes between `{{`
and `}}` is a program: it may loop or eat memory here, and only this process pays. Requests and answers are JSON:
`{"templates": [[path, text], …], "message": {…}}` → `{"texts": […]}` or `{"error": "…"}`.
"""

import contextlib
import json
import resource
import sys
from collections.abc import Mapping
from typing import Any

from routing.authoring import rendering
from routing.authoring.spec import Template
from routing.errors import TaskFailed

MEMORY_LIMIT_BYTES = 512 * 1024**2
TEXTS_MAX_CHARS = 262_144
"""Kubernetes takes no more in the annotations of a pod, and its message stands there."""


def main() -> int:
    """Answers until the input ends. Returns the exit code."""
    with contextlib.suppress(ValueError, OSError):  # a lower limit is set already, or the system has none
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rendering.warm()
    _say({"ready": True})
    for line in sys.stdin:
        _say(answer(json.loads(line)))
    return 0


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The texts that a request asks for, or why one of them cannot be had."""
    try:
        texts = rendering.render([Template(*pair) for pair in request["templates"]], request["message"])
    except TaskFailed as failed:
        return {"error": str(failed)}
    if sum(map(len, texts)) > TEXTS_MAX_CHARS:
        largest = max(zip(texts, request["templates"], strict=True), key=lambda pair: len(pair[0]))
        return {"error": f"{largest[1][0]}: the template gives {len(largest[0]):,} characters, too many for a pod"}
    return {"texts": texts}


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
