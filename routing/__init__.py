"""The names that DAG authors import; each is loaded when first asked for, so that `import routing` costs nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routing.authoring.bash_operator import BashOperator
    from routing.authoring.context import get_current_context
    from routing.authoring.dag import DAG
    from routing.authoring.empty_operator import EmptyOperator
    from routing.authoring.pod_operator import KubernetesPodOperator
    from routing.authoring.python_operator import PythonOperator
    from routing.authoring.task import task
    from routing.authoring.trigger import TriggerRule
    from routing.authoring.xcom import XComArg
    from routing.errors import InvalidDag, TaskFailed

__all__ = [
    "DAG",
    "BashOperator",
    "EmptyOperator",
    "InvalidDag",
    "KubernetesPodOperator",
    "PythonOperator",
    "TaskFailed",
    "TriggerRule",
    "XComArg",
    "get_current_context",
    "task",
]

_HOMES = {
    "DAG": "authoring.dag",
    "BashOperator": "authoring.bash_operator",
    "EmptyOperator": "authoring.empty_operator",
    "InvalidDag": "errors",
    "KubernetesPodOperator": "authoring.pod_operator",
    "PythonOperator": "authoring.python_operator",
    "TaskFailed": "errors",
    "TriggerRule": "authoring.trigger",
    "XComArg": "authoring.xcom",
    "get_current_context": "authoring.context",
    "task": "authoring.task",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'routing' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"routing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
