"""The public surface: what people import from `dispatcher` and `routing`, and nothing by accident."""

import subprocess
import sys
from types import ModuleType

import pytest

import dispatcher
import routing

DISPATCHER = ["Options", "PodFailed", "QueueProfile", "Secret", "Volume", "VolumeMount", "on_pod"]
ROUTING = [
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


@pytest.mark.parametrize(("package", "names"), [(dispatcher, DISPATCHER), (routing, ROUTING)])
def test_a_package_offers_these_names_and_no_other(package: ModuleType, names: list[str]) -> None:
    """Adding or losing one is a decision, and changes this list; sorted as ruff sorts `__all__`."""
    assert list(package.__all__) == names
    assert [getattr(package, name).__name__ for name in names] == names
    assert set(names) <= set(dir(package))


@pytest.mark.parametrize("package", [dispatcher, routing])
def test_an_unknown_name_is_refused_with_those_that_there_are(package: ModuleType) -> None:
    """As a module without such a name does, and with its names."""
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Nothing'; it has"):
        _ = package.Nothing


def test_importing_a_package_loads_nothing_else() -> None:
    """Pods and senders import them: a name costs what it needs, when it is asked for."""
    code = (
        "import sys, dispatcher, routing;"
        "print(sorted(name for name in sys.modules if name.startswith(('dispatcher', 'routing', 'celery', 'kombu'))))"
    )

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "['dispatcher', 'routing']"
