"""A Celery pool whose slots are Kubernetes pods, and the names that authors use to describe pods.

Importing this is cheap, for pods import it too: each name is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.kubernetes_types import Secret, Volume, VolumeMount
    from dispatcher.wishes import on_pod

__all__ = ["Secret", "Volume", "VolumeMount", "on_pod"]


def __getattr__(name: str) -> Any:
    """The public names, from where they are defined."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "on_pod":
        from dispatcher import wishes  # noqa: PLC0415 - lazy, see above

        return wishes.on_pod
    from dispatcher import kubernetes_types  # noqa: PLC0415 - lazy, see above

    return getattr(kubernetes_types, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
