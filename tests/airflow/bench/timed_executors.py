"""The executors that are compared, which write down what CPU of the scheduler's process their calls take.

In the environment of Airflow. Everything that an executor does runs in these two calls, or in child processes, which
the benchmark looks at itself.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import KubernetesExecutor

from routing.airflow import PodyardExecutor


class _Timed:
    _spent_s = 0.0

    def heartbeat(self) -> None:
        before_s = time.process_time()
        super().heartbeat()  # type: ignore[misc]
        self._spent_s += time.process_time() - before_s
        place = Path(os.environ["BENCH_TIMES"])
        place.with_suffix(".new").write_text(json.dumps(self._spent_s))
        place.with_suffix(".new").replace(place)

    def queue_workload(self, *args: Any, **kwargs: Any) -> None:
        before_s = time.process_time()
        super().queue_workload(*args, **kwargs)  # type: ignore[misc]
        self._spent_s += time.process_time() - before_s


class TimedKubernetesExecutor(_Timed, KubernetesExecutor):
    """The provider's."""


class TimedPodyardExecutor(_Timed, PodyardExecutor):
    """Ours."""
