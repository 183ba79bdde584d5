"""Which versions the executor refuses, and what it says then. None of them is needed here."""

from dataclasses import replace

import pytest

import routing.airflow
from routing.airflow import versions

GOOD = versions.Versions(airflow="3.3.2", provider="3.26.0", celery="5.6.3")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"airflow": "3.1.0"}, None),
        ({"airflow": "3.10.0"}, None),
        ({"airflow": "3.0.6"}, "Airflow 3.1 or newer; here is 3.0.6"),
        ({"airflow": "2.11.0"}, "Airflow 3.1 or newer; here is 2.11.0"),
        ({"airflow": ""}, "Airflow 3.1 or newer; here is none"),
        ({"provider": "3.15.0"}, None),
        ({"provider": "3.10.6"}, "here is 3.10.6: pip install 'apache-airflow-providers-celery>=3.15'"),
        ({"provider": ""}, "here is none"),
        ({"celery": "5.7.0"}, "cannot be imported with Celery 5.7.0: pip install 'celery<5.7'"),
        ({"celery": "6.0"}, "celery<5.7"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(change: dict[str, str], words: str | None) -> None:
    """With what is here, and what to do."""
    said = versions.trouble(replace(GOOD, **change))
    assert said is None if words is None else words in str(said)
    assert "\n" not in str(said)


def test_the_executor_is_not_imported_where_it_cannot_work() -> None:
    """Here is no Airflow: its loader gets that line, instead of an error about a module that somebody else imports."""
    with pytest.raises(ImportError, match=r"PodyardExecutor needs Airflow 3\.1 or newer"):
        routing.airflow.PodyardExecutor  # looking it up is what is tried
