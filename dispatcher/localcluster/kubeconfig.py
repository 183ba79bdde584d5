"""The private kubeconfig: address and token of the local cluster, readable by its owner only."""

import base64
import contextlib
import json
import os
from pathlib import Path

CONTEXT = "podyard-local"


def text(*, address: str, token: str, authority: str) -> str:
    """A kubeconfig; JSON, which is YAML too."""
    encoded = base64.b64encode(authority.encode()).decode()
    cluster = {"server": address, "certificate-authority-data": encoded}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"}}],
        "current-context": CONTEXT,
    }
    return json.dumps(config, indent=2) + "\n"


def write_private(path: Path, content: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    # One that a process of the same number left behind.
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    # Private from the first moment: a mode that is changed afterwards leaves a time in which others can open it.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    # A rename is whole or not at all: clients read the file while it is written anew.
    draft.replace(path)
