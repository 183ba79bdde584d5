"""`podyard dags render`: the pods that tasks would get, as manifests, made by the dispatcher's own code."""

import asyncio
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from routing.cli import output as out
from routing.cli.failure import Failure
from routing.cli.session import Session, common_options, pass_session

if TYPE_CHECKING:
    from celery import Celery

    from dispatcher.protocol.message import Message
    from routing.authoring.spec import DagSpec, TaskSpec
    from routing.config.settings import Settings

NO_ATTEMPT = "00000000-0000-0000-0000-000000000000"


@click.command()
@click.argument("dag", required=False)
@click.argument("task", required=False)
@click.option(
    "--message",
    "file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A Celery task message instead: JSON with task, queue, args, kwargs, headers, time_limit. - reads stdin.",
)
@click.option("--run-id", default="render", show_default=True, help="The run's id, which is in labels.")
@click.option("--attempt-id", default=NO_ATTEMPT, help="The attempt's id, which is in the pod's name; else zeros.")
@click.option("--conf", default="{}", help="Parameters of the run: a JSON object.")
@click.option("--validate", is_flag=True, help="Ask the API server whether it would take each pod; creates nothing.")
@click.option("--output", "-o", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Format.")
@common_options
@pass_session
def render(
    session: Session,
    *,
    dag: str | None,
    task: str | None,
    file: Path | None,
    run_id: str,
    attempt_id: str,
    conf: str,
    validate: bool,
    output: str,
) -> None:
    """Print the exact pods that the tasks of DAG (or one TASK) would get. Values that look like secrets are hidden.

    Results of other tasks are not known here: a text in angle brackets stands for each. Nor is what a Celery task says
    of its pod in its own application; put that into the message's header.

    \b
    Example:  podyard dags render stdlib_census
              podyard dags render stdlib_census count --validate
              podyard dags render --message message.json
    """
    if (dag is None) == (file is None):
        raise click.UsageError("give either a DAG or --message")
    settings = session.settings
    from routing.worker import celery_app

    app = celery_app.build(settings, role="scheduler")
    if file is not None:
        messages = [_written(app, file, attempt_id)]
    else:
        found = _find_dag(settings, str(dag))
        messages = list(_messages(app, settings, found, task=task, run_id=run_id, attempt_id=attempt_id, conf=conf))
    manifests = [_manifest(settings, message) for message in messages]
    if validate:
        asyncio.run(_validate(settings, manifests))
    _show(manifests, output=output)


def _show(manifests: list[dict[str, Any]], *, output: str) -> None:
    from dispatcher.manifests import redaction

    shown = [redaction.redacted(one) for one in manifests]
    if output == "json":
        out.show_data(shown, output="json")
        return
    for one in shown:
        click.echo("---")
        out.show_data(one, output="yaml")


def _manifest(settings: "Settings", message: "Message") -> dict[str, Any]:
    """By the same function, with the same options, as in the dispatcher."""
    from dispatcher.manifests import builder
    from routing.worker import celery_app

    options = celery_app.dispatcher_options(settings)
    try:
        profile = options.profile_for(message.queue)
    except LookupError as error:
        raise Failure(f"there is no pod for {message.name} on the queue {message.queue!r}: {error}") from error
    hard_limit_s = (message.headers.get("timelimit") or [None])[0]
    owner = f"dispatcher@{socket.gethostname()}"
    return builder.build(message, profile=profile, options=options, owner=owner, deadline_s=hard_limit_s)


async def _validate(settings: "Settings", manifests: list[dict[str, Any]]) -> None:
    """Raises Failure with the server's words for the first pod that it would not take."""
    from dispatcher import errors
    from dispatcher.kubeapi import client, server_access

    access = server_access.connect_as(settings.kubernetes)
    async with client.KubeClient(access) as api:
        for one in manifests:
            metadata = one["metadata"]
            try:
                await api.create_pod(metadata["namespace"], json.dumps(one).encode(), dry_run=True)
            except errors.ApiError as error:
                # The name is looked up last, when schema, quota and webhooks have let the pod pass.
                if error.reason != "AlreadyExists":
                    raise Failure(f"the API server would not take the pod {metadata['name']}: {error}") from error
    click.echo(f"the API server would take {len(manifests)} pods", err=True)


def _find_dag(settings: "Settings", dag_id: str) -> "DagSpec":
    """From the DAG folder as it is now: neither database nor scheduler is needed."""
    from routing.authoring import loading

    loaded = loading.load_folder(settings.dags.folder, timeout_s=settings.dags.load_timeout_s)
    found = next((one for one in loaded.dags if one.dag_id == dag_id), None)
    if found is None:
        broken = f"; {len(loaded.errors)} files cannot be used" if loaded.errors else ""
        raise Failure(f"the DAG {dag_id!r} is not in {settings.dags.folder}{broken}; `podyard dags list` lists them")
    return found


def _messages(
    app: "Celery", settings: "Settings", dag: "DagSpec", *, task: str | None, run_id: str, attempt_id: str, conf: str
) -> "Iterator[Message]":
    """The messages of the tasks that get a pod; of the one task that is asked for, in any case."""
    if task is not None and all(one.task_id != task for one in dag.tasks):
        known = ", ".join(one.task_id for one in dag.tasks)
        raise Failure(f"the DAG {dag.dag_id!r} has no task {task!r}; it has {known}")
    for one in dag.tasks:
        route = _route(settings, one)
        if task is not None and one.task_id != task:
            continue
        if one.operator == "empty" or route.side != "kubernetes":
            if task is not None:
                where = "has no body" if one.operator == "empty" else f"runs on Celery workers (queue {route.queue!r})"
                raise Failure(f"the task {task!r} gets no pod: it {where}")
            continue
        yield _task_message(app, dag, one, queue=route.queue, run_id=run_id, attempt_id=attempt_id, conf=conf)


def _route(settings: "Settings", task: "TaskSpec") -> Any:
    from routing.scheduling import messages

    route = settings.router.route(task.queue or (messages.POD_QUEUE if task.operator == "pod" else None))
    if task.operator == "pod" and route.side != "kubernetes":
        return settings.router.route(messages.POD_QUEUE)
    return route


def _task_message(
    app: "Celery", dag: "DagSpec", task: "TaskSpec", *, queue: str, run_id: str, attempt_id: str, conf: str
) -> "Message":
    from routing.authoring import spec
    from routing.errors import TaskFailed
    from routing.scheduling import messages

    occasion = messages.Occasion(
        dag_file=dag.file,
        dag_id=dag.dag_id,
        run_id=run_id,
        logical_date=datetime.now(UTC),
        conf=_object(conf, "--conf"),
        try_number=1,
        # A kind of text of its own: where a list or a mapping is wanted it
        # leaves the parameter out, as nobody knows it.
        inputs={name: spec.Unknown(f"<result of {name}>") for name in task.inputs},
        params=dag.params,
        attempt_id=attempt_id,
    )
    try:
        sent = messages.build(task, occasion)
    except TaskFailed as failed:
        raise Failure(f"the task {task.task_id!r} gets no pod: {failed}; give what it needs by --conf") from failed
    return _message(app, sent, queue=queue, attempt_id=attempt_id, description=messages.describe(sent))


def _written(app: "Celery", file: Path, attempt_id: str) -> "Message":
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    sent = _object(text, "--message")
    if not isinstance(sent.get("task"), str):
        raise click.BadParameter('there is no "task", the name of the Celery task', param_hint="--message")
    sent["name"] = sent["task"]
    queue = str(sent.get("queue") or "kubernetes")
    return _message(app, sent, queue=queue, attempt_id=str(sent.get("id") or attempt_id), description=None)


def _message(
    app: "Celery", sent: Mapping[str, Any], *, queue: str, attempt_id: str, description: str | None
) -> "Message":
    """What the dispatcher would receive: Celery's own code makes the message."""
    from dispatcher.protocol.message import Message

    reprs = {} if description is None else {"argsrepr": "()", "kwargsrepr": description}
    args, kwargs = tuple(sent.get("args") or ()), dict(sent.get("kwargs") or {})
    made = app.amqp.as_task_v2(
        attempt_id, sent["name"], args, kwargs, time_limit=sent.get("time_limit"), shadow=sent.get("shadow"), **reprs
    )
    request = {
        **made.headers,
        **(sent.get("headers") or {}),
        "properties": made.properties,
        "delivery_info": {"exchange": "", "routing_key": queue, "priority": 0, "redelivered": False},
    }
    return Message.from_request(sent["name"], attempt_id, request, made.body)


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write a JSON object", param_hint=where) from error
    if not isinstance(found, dict):
        raise click.BadParameter("must be a JSON object", param_hint=where)
    return found
