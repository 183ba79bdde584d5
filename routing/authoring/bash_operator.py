"""BashOperator: a task whose body is a shell command."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Unpack

from routing.authoring import copies, rendering, spec, xcom
from routing.authoring.dag import DAG
from routing.authoring.operator import Operator
from routing.authoring.options import OperatorOptions
from routing.errors import InvalidDag, TaskFailed

_CONTEXT_IN_ENV = ("dag_id", "ds", "logical_date", "map_index", "run_id", "task_id", "try_number")


class BashOperator(Operator):
    """Runs `bash -c bash_command`; the last line of its standard output is the task's result.

    `env` is added to the environment of the process that runs the task (`append_env=False`: it replaces that), and
    may hold results of other tasks. The command and the values of `env` may be Jinja templates.
    `PODYARD_CTX_DAG_ID`, `…_TASK_ID`, `…_RUN_ID`, `…_DS`, `…_LOGICAL_DATE`, `…_TRY_NUMBER` and `…_MAP_INDEX` are set.
    It runs in `cwd`, or in an empty folder that is removed afterwards.
    """

    kind = "bash"
    parameters = ("append_env", "bash_command", "cwd", "env")

    def __init__(
        self,
        *,
        task_id: str,
        bash_command: str | xcom.XComArg,
        env: Mapping[str, Any] | None = None,
        append_env: bool = True,
        cwd: str | None = None,
        dag: DAG | None = None,
        **given: Unpack[OperatorOptions],
    ) -> None:
        self.bash_command, self.append_env, self.cwd = bash_command, append_env, cwd
        self.env = copies.copied(env or {})
        super().__init__(task_id, dag=dag, arguments=(bash_command, self.env), given=given)
        if not isinstance(bash_command, str | xcom.XComArg) or bash_command == "":
            raise InvalidDag(f"{self.where}: bash_command must be a command, a string, not {bash_command!r}")
        if not isinstance(self.env, Mapping):
            raise InvalidDag(f"{self.where}: env must be a mapping, not {env!r}")
        self.env = dict(self.env)
        for name, value in self.env.items():
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                raise InvalidDag(f"{self.where}: env: {name!r} cannot name an environment variable")
            if not isinstance(value, str | int | float | xcom.XComArg) or isinstance(value, bool) or _has_nul(value):
                raise InvalidDag(f"{self.where}: env[{name!r}] must be a string, not {value!r}")

    def templates(self) -> Iterator[spec.Template]:
        """The command, and the values of `env`."""
        yield from rendering.find(self.bash_command, "bash_command")
        yield from rendering.find(self.env, "env")

    def execute(self, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
        """Runs the command. Raises TaskFailed with the exit code if that is not 0."""
        import sys
        import tempfile

        from routing.authoring import shell

        command = rendering.rendered(self.bash_command, context, inputs, "bash_command")
        # After the templates: what another task returned is never read as one.
        command = spec.text(xcom.resolve(command, inputs))
        with tempfile.TemporaryDirectory(prefix="podyard-") as empty:
            try:
                ended = shell.run(
                    command,
                    env=self._environment(context, inputs),
                    cwd=self.cwd or empty,
                    out=sys.stdout,
                    err=sys.stderr,
                )
            except (OSError, ValueError) as error:
                raise TaskFailed(
                    f"bash could not be started: {error}", {"reason": "StartError", "cause": "application"}
                ) from error
        if ended.exit_code:
            raise _failed(ended.exit_code)
        return ended.last_line

    def _environment(self, context: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, str]:
        env = rendering.rendered(self.env, context, inputs, "env")
        return {
            **(os.environ if self.append_env else {}),
            **{f"PODYARD_CTX_{name.upper()}": str(context[name]) for name in _CONTEXT_IN_ENV},
            # The author's last: what a task says wins over what it inherits.
            **{name: spec.text(xcom.resolve(value, inputs)) for name, value in env.items()},
        }


def _has_nul(value: object) -> bool:
    return isinstance(value, str) and "\0" in value


def _failed(exit_code: int) -> TaskFailed:
    message = f"the bash command failed with exit code {exit_code}"
    if exit_code > 128:
        from signal import Signals

        names = {number.value: number.name for number in Signals}
        message += f" (ended by {names.get(exit_code - 128, 'a signal')})"
    return TaskFailed(message, {"reason": "Error", "exit_code": exit_code, "cause": "application"})
