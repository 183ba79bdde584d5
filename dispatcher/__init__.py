"""A Celery pool whose slots are Kubernetes pods, and the names that authors use to describe pods.

Importing this is cheap, for pods import it too: each name is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.manifests.call_options import on_pod
    from dispatcher.manifests.kubernetes_types import Secret, Volume, VolumeMount

__all__ = ["Secret", "Volume", "VolumeMount", "on_pod"]


def __getattr__(name: str) -> Any:
    """The public names, from where they are defined."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "on_pod":
        from dispatcher.manifests import call_options

        return call_options.on_pod
    from dispatcher.manifests import kubernetes_types

    return getattr(kubernetes_types, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
