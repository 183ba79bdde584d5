"""EmptyOperator: a task that does nothing, to join or to fan out."""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from routing.authoring.dag import DAG
from routing.authoring.operator import Operator
from routing.authoring.options import OperatorOptions


class EmptyOperator(Operator):
    """Does nothing. It is never sent anywhere: the scheduler marks it as done itself."""

    kind = "empty"
    without_effect: ClassVar = dict.fromkeys(
        ("execution_timeout", "executor_config", "queue", "retries", "retry_delay"), "an EmptyOperator is never sent"
    )

    def __init__(self, *, task_id: str, dag: DAG | None = None, **given: Unpack[OperatorOptions]) -> None:
        super().__init__(task_id, dag=dag, arguments=(), given=given)

    def execute(self, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Nothing to do."""
