"""A Celery pool whose slots are Kubernetes pods, and the names that people import.

Importing this is cheap, for pods and senders import it too: each name is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.errors import PodFailed
    from dispatcher.manifests.call_options import on_pod
    from dispatcher.manifests.kubernetes_types import Secret, Volume, VolumeMount
    from dispatcher.options import Options, QueueProfile

__all__ = ["Options", "PodFailed", "QueueProfile", "Secret", "Volume", "VolumeMount", "on_pod"]

_HOMES = {
    "Options": "options",
    "PodFailed": "errors",
    "QueueProfile": "options",
    "Secret": "manifests.kubernetes_types",
    "Volume": "manifests.kubernetes_types",
    "VolumeMount": "manifests.kubernetes_types",
    "on_pod": "manifests.call_options",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dispatcher' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"dispatcher.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
