"""The result sidecar: how a pod of any image gives a result without exec, and without a way to hang.

A native sidecar (an init container that is restarted always) shares a folder with the task container. When that has
ended, the cluster sends SIGTERM to sidecars, and the sidecar reports what it finds: nothing, a small result in its
termination message, a larger one in its log. It reads at most a bound, needs nothing but a POSIX shell with `base64`
and `sha256sum`, and the pod's grace period ends it in any case. Pure: `build` makes it,
`report_of` and `read_log` read it.

Source: https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/.
"""

import base64
import binascii
import hashlib
import json
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dispatcher import errors

NAME = "podyard-result"
"""Of the container and of the volume."""
FOLDER = "/podyard-result"
"""Where the sidecar sees the folder."""
INLINE_BYTES = 700
"""What goes into the termination message; of twelve containers Kubernetes keeps a kilobyte each."""
SHOWN_BYTES = 120
_MARK = "podyard-result"

# A shell runs a trap between two commands only: with `sleep` in the foreground it would come an hour late, with
# `wait` at once. The log first, then the message that speaks of it: whoever is killed in between has said nothing.
_SCRIPT = """\
f={file}
tell() {{ echo "{mark} $*" > /dev/termination-log; }}
finish() {{
  trap '' TERM INT
  if [ ! -e "$f" ]; then tell nothing
  elif [ ! -f "$f" ] || [ ! -r "$f" ]; then tell unreadable
  else
    size=$(($(wc -c < "$f")))
    if [ "$size" -gt {max_bytes} ]; then tell large "$size"
    elif [ "$size" -le {inline} ]; then tell here "$(base64 < "$f" | tr -d '\\n')"
    else base64 < "$f" && tell log "$size" "$(sha256sum < "$f" | cut -c 1-64)"
    fi
  fi
  exit 0
}}
trap finish TERM INT
while :; do sleep 3600 & wait $!; done
"""
_SECURITY_CONTEXT: Mapping[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

Kind = Literal["waiting", "nothing", "unreadable", "large", "here", "log", "lost"]


@dataclass(frozen=True, kw_only=True)
class SidecarReport:
    """What a sidecar has said so far. `waiting`: it runs. `lost`: it ended without a word."""

    kind: Kind
    data: bytes = b""
    """Of `here`: the file."""
    size: int = 0
    sha256: str = ""


def build(
    *, path: str, image: str, max_bytes: int, base: str, security_context: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The pod override that adds the sidecar for the file at `path` of the container `base`."""
    folder, file = posixpath.split(path)
    script = _SCRIPT.format(
        file=shlex.quote(f"{FOLDER}/{file}"), mark=_MARK, max_bytes=int(max_bytes), inline=INLINE_BYTES
    )
    sidecar = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        # On an init container this makes a native sidecar: started before the task, ended by the cluster after it.
        "restartPolicy": "Always",
        "command": ["sh", "-c"],
        "args": [script],
        "volumeMounts": [{"name": NAME, "mountPath": FOLDER}],
        "securityContext": dict(_SECURITY_CONTEXT if security_context is None else security_context),
        # A namespace whose quota counts cpu or memory takes no container without requests.
        "resources": {"requests": {"cpu": "1m", "memory": "10Mi"}},
    }
    return {
        "spec": {
            "initContainers": [sidecar],
            "containers": [{"name": base, "volumeMounts": [{"name": NAME, "mountPath": folder}]}],
            "volumes": [{"name": NAME, "emptyDir": {}}],
        }
    }


def check(pod: Mapping[str, Any], *, path: str, base: str) -> None:
    """Raises InvalidPod where a template or an override has what the sidecar needs for itself."""
    spec = pod.get("spec") or {}
    for group in ("initContainers", "containers", "volumes"):
        for index, entry in enumerate(spec.get(group) or ()):
            if entry.get("name") == NAME:
                raise errors.InvalidPod(
                    f"pod: spec.{group}[{index}].name: {NAME!r} is the result sidecar's (do_xcom_push); choose another"
                )
    folder = posixpath.dirname(path)
    for index, container in enumerate(spec.get("containers") or ()):
        for place, mount in enumerate(container.get("volumeMounts") or ()):
            if container.get("name") == base and posixpath.normpath(str(mount.get("mountPath"))) == folder:
                raise errors.InvalidPod(
                    f"pod: spec.containers[{index}].volumeMounts[{place}].mountPath: {folder} is where the result is "
                    "collected (do_xcom_push); mount elsewhere, or name another file in xcom_path"
                )


def report_of(pod: Mapping[str, Any]) -> SidecarReport:
    """What the sidecar of a pod has said; never raises."""
    for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
        if status.get("name") != NAME:
            continue
        ended = (status.get("state") or {}).get("terminated")
        # It runs, or has not begun.
        if ended is None:
            break
        return _read(str(ended.get("message") or ""))
    phase = (pod.get("status") or {}).get("phase")
    return SidecarReport(kind="lost" if phase in ("Succeeded", "Failed") else "waiting")


def _read(message: str) -> SidecarReport:
    match message.split():
        case [mark, "nothing" | "unreadable" as kind] if mark == _MARK:
            return SidecarReport(kind="nothing" if kind == "nothing" else "unreadable")
        case [mark, "large", size] if mark == _MARK and size.isdigit():
            return SidecarReport(kind="large", size=int(size))
        case [mark, "here", *text] if mark == _MARK and len(text) < 2:
            data = _decoded("".join(text))
            return SidecarReport(kind="lost") if data is None else SidecarReport(kind="here", data=data)
        case [mark, "log", size, sha256] if mark == _MARK and size.isdigit():
            return SidecarReport(kind="log", size=int(size), sha256=sha256)
    return SidecarReport(kind="lost")


def read_log(log: bytes, found: SidecarReport) -> bytes:
    """The file that the sidecar wrote into its log. Raises PodFailed where it is not whole."""
    data = _decoded(log.decode("ascii", "replace"))
    if data is None or len(data) != found.size or hashlib.sha256(data).hexdigest() != found.sha256:
        raise errors.PodFailed(
            f"its result of {found.size} bytes is not whole in the log of the container {NAME!r}",
            {"reason": "ResultLost", "cause": "infrastructure"},
        )
    return data


def value(data: bytes, *, path: str) -> Any:
    """The result in the bytes of the file; an empty file is None. Raises PodFailed that shows the first bytes."""
    # Airflow's own sidecar takes an empty file for no result, too.
    if not data.strip():
        return None
    try:
        # Python reads NaN and Infinity, which are no JSON for anybody else; PostgreSQL refuses them.
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise errors.PodFailed(
            f"its result, the file {path}, is not JSON: {error}; it begins with {data[:SHOWN_BYTES]!r}",
            {"reason": "InvalidResult", "cause": "application"},
        ) from None


def failure(found: SidecarReport, *, path: str, max_bytes: int) -> errors.PodFailed:
    """Why there is no result where there should be one."""
    match found.kind:
        case "unreadable":
            return errors.PodFailed(
                f"its result, {path}, is no file that the sidecar may read; let the task write it readable for all, or "
                "set xcom_sidecar_container_security_context",
                {"reason": "InvalidResult", "cause": "application"},
            )
        case "large":
            return errors.PodFailed(
                f"its result, the file {path}, has {found.size} bytes, allowed are {max_bytes} (results.max_bytes); "
                "leave a path or a key instead",
                {"reason": "ResultTooLarge", "cause": "application"},
            )
    return errors.PodFailed(
        f"the container {NAME!r} ended without telling the result; is the image of kubernetes.xcom_sidecar_image one "
        "with sh, base64 and sha256sum?",
        {"reason": "ResultLost", "cause": "infrastructure"},
    )


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
