"""The sample shop with one task per promise of Celery, to see that each holds in a pod as in a prefork worker.

Bodies and hooks say what they do in a file (`note`), a path of its own past broker and results.
"""

import json
import os
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
from celery import Task, chain, chord, group, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.result import AsyncResult
from kombu import serialization
from kombu.utils.json import register_type

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "examples" / "shop"))
from shop import app

serialization.register(
    "msgpack", msgspec.msgpack.encode, msgspec.msgpack.decode, content_type="application/x-msgpack"
)  # what kombu does itself where the package msgpack is installed
NOTES = os.environ.get("SHOP_NOTES", "")
app.conf.update(
    accept_content=["json", "msgpack", *(["pickle"] if os.environ.get("SHOP_PICKLE") else [])],
    task_default_delivery_mode="transient",
    broker_transport_options={"visibility_timeout": 10, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
    result_expires=600,
    worker_hijack_root_logger=False,
)


def note(run, what):
    """Leaves one line for the test that runs this row."""
    with (Path(NOTES) / str(run)).open("a") as notes:
        notes.write(f"{what}\n")


class TaskError(Exception):
    """One with more than a text."""

    def __init__(self, code, where="here"):
        super().__init__(code, where)


@app.task
def add(x, y):
    return x + y


@app.task
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task
def fail(kind, *args):
    raise {"ValueError": ValueError, "KeyError": KeyError, "TaskError": TaskError}[kind](*args)


@app.task(bind=True, max_retries=3)
def flaky(self, fails):
    """Fails as often as it is told."""
    if self.request.retries < fails:
        raise self.retry(countdown=0.1, exc=OSError("not yet"))
    return self.request.retries


@app.task(bind=True, max_retries=2)
def other_arguments(self, step):
    """Retries with other arguments."""
    if step < 2:
        self.retry(args=(step + 1,), countdown=0.1)
    return [step, self.request.retries]


@app.task(bind=True, max_retries=1)
def hopeless(self):
    """Ends with MaxRetriesExceededError."""
    self.retry(countdown=0.1)


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False, max_retries=2)
def backing_off(self, run):
    note(run, time.time())
    raise OSError(f"try {self.request.retries}")


class Money:
    """A type of the application's own in Celery's JSON."""

    def __init__(self, cents):
        self.cents = cents


register_type(Money, "money", lambda money: money.cents, Money)


@app.task
def of_kind(kind, *args):
    """A value of a kind that JSON has no word for, or has one for by chance."""
    return {
        "defaultdict": lambda: defaultdict(list, a=[1]),
        "Counter": lambda: {"counted": Counter("abracadabra")},
        "signature": lambda: [add.s(1, 2).set(queue="elsewhere")],
        "chain": lambda: add.s(1, 2) | add.s(3),
        "tuple": lambda: (1, (2,)),
        "int keys": lambda: {1: "a", None: "b"},
        "bytes": lambda: {"text": b"text", "binary": b"\xff"},
        "decimal, date": lambda: [Decimal("1.10"), datetime(2030, 1, 2, tzinfo=UTC)],
        "result": lambda: AsyncResult("one", app=app, parent=AsyncResult("zero", app=app)),
        "set": lambda: {1},
        "dataclass": lambda: Price(1),
        "own type": lambda: Money(7).cents + args[0].cents,
    }[kind]()


@dataclass
class Price:
    cents: int


class NamedOnlyError(Exception):
    """Cannot be made from its `args`."""

    def __init__(self, *, code):
        super().__init__()
        self.code = code


class NamedOnlyValueError(ValueError):
    """The same, of a class that can."""

    def __init__(self, text, *, code):
        super().__init__(text)
        self.code = code


class FormatsError(Exception):
    """Makes its text from what it is given."""

    def __init__(self, code):
        super().__init__(f"code {code}")


@app.task
def fail_unusually(kind):
    if kind == "named only":
        raise NamedOnlyError(code=1)
    if kind == "named only, a ValueError":
        raise NamedOnlyValueError("no", code=1)
    raise FormatsError(7)


@app.task(bind=True)
def moment(self):
    """When it ran."""
    return datetime.now(UTC).timestamp()


@app.task(bind=True)
def about(self):
    """What the task knows of its request."""
    request = self.request
    return {
        "id": request.id,
        "task": request.task,
        "args": list(request.args),
        "kwargs": request.kwargs,
        "retries": request.retries,
        "has_hostname": bool(request.hostname),
        "delivery_info": {key: request.delivery_info[key] for key in ("exchange", "priority", "redelivered")},
        "routing_key": request.delivery_info["routing_key"],
        "headers": {key: value for key, value in (request.headers or {}).items() if key == "customer"},
        "customer": getattr(request, "customer", None),
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "correlation_id": request.correlation_id,
        "called_directly": request.called_directly,
        "is_eager": request.is_eager,
        "timelimit": list(request.timelimit or []),
        "expires": request.expires,
        "shadow": request.shadow,
        "group": bool(request.group),
        "origin": bool(request.origin),
        "argsrepr": request.argsrepr,
    }


@app.task(bind=True)
def family(self, *_):
    """Its place among other tasks."""
    return {"root": self.request.root_id, "parent": self.request.parent_id, "id": self.request.id}


@app.task
def patient(seconds):
    """Cleans up when its soft limit comes."""
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "slept"


@app.task
def nap(seconds, run=None):
    if run:
        note(run, os.getpid())
    time.sleep(seconds)
    return "slept"


@app.task(soft_time_limit=1)
def limited_softly():
    time.sleep(30)


@app.task(time_limit=1)
def limited_hard():
    time.sleep(30)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def survivor(self, run):
    """The first run is lost with its worker, the second ends."""
    note(run, os.getpid())
    if len((Path(NOTES) / run).read_text().splitlines()) == 1:
        time.sleep(60)
    return "again"


@app.task(acks_late=True)
def late(x):
    return x


@app.task(acks_late=True, bind=True)
def sent_back(self, run):
    """Puts its own message back, once."""
    note(run, "ran")
    if len((Path(NOTES) / run).read_text().splitlines()) == 1:
        raise Reject("once more", requeue=True)
    return "done"


@app.task(acks_late=True, bind=True)
def stores_and_sends_back(self, run):
    """De-duplication of its own: what it has done stands in the backend, and the message goes round once more."""
    note(run, str(bool(self.request.delivery_info.get("redelivered"))))
    if len((Path(NOTES) / run).read_text().splitlines()) == 1:
        self.backend.store_result(self.request.id, 20, "SUCCESS")
        raise Reject("once more", requeue=True)
    return 20


@app.task(acks_late=True, acks_on_failure_or_timeout=False, time_limit=1)
def late_and_limited(run):
    """The first run takes too long, the second ends."""
    note(run, "ran")
    if len((Path(NOTES) / run).read_text().splitlines()) == 1:
        time.sleep(60)
    return "in time"


@app.task(ignore_result=True)
def ignored(run):
    note(run, "ran")
    return "nobody asks"


@app.task(track_started=True)
def tracked(seconds):
    time.sleep(seconds)
    return "done"


@app.task
def gives_up():
    raise Ignore


@app.task
def rejects():
    raise Reject("not me", requeue=False)


@app.task(rate_limit="2/s")
def slow_lane(number):
    return number


@app.task
def total(values):
    return sum(values)


@app.task
def linked(value, run):
    note(run, f"linked {value}")


@app.task
def regret(request, exc, traceback, run):
    """A new-style error callback."""
    note(run, f"{type(exc).__name__} {request.id == run}")


@app.task
def old_regret(task_id):
    """An old-style error callback: a task of its own."""
    note(task_id, "regret")


class Hooked(Task):
    """Says which of its hooks are called."""

    abstract = True

    def before_start(self, task_id, args, kwargs):
        note(task_id, "before_start")

    def on_success(self, retval, task_id, args, kwargs):
        note(task_id, f"on_success {retval}")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(task_id, f"on_failure {exc!r} {'boom_in_the_body' in str(einfo)}")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(task_id, f"on_retry {exc!r}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):  # noqa: PLR0917 - the signature is Celery's
        note(task_id, f"after_return {status}")


@app.task(base=Hooked, bind=True, max_retries=1)
def hooked(self, how):
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0.5, exc=OSError("again"))
    if how == "fail":
        boom_in_the_body()
    if how == "time out":
        time.sleep(30)
    return how


def boom_in_the_body():
    """A name to find in tracebacks."""
    raise ValueError("boom")


class Called(Task):
    """Has a `__call__` of its own."""

    abstract = True

    def __call__(self, *args, **kwargs):
        return ["called", super().__call__(*args, **kwargs)]


@app.task(base=Called)
def called(x):
    return x


@app.task
def resources():
    """What a worker process prepared for its tasks."""
    return PREPARED


PREPARED = []


@signals.worker_process_init.connect
def _prepare(**_):
    PREPARED.append("connection")


def _signalled(kind):
    def receiver(sender=None, task_id=None, request=None, **_):
        task_id = task_id or (request.id if request is not None else None) or sender.request.id
        if getattr(sender, "name", sender) == signalling.name:
            note(task_id, kind)

    return receiver


@app.task(bind=True, max_retries=1)
def signalling(self, how):
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0.5)
    if how == "fail":
        raise ValueError(how)
    return how


_RECEIVERS = {
    kind: _signalled(kind) for kind in ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry")
}
for _kind, _receiver in _RECEIVERS.items():
    getattr(signals, _kind).connect(_receiver)


@app.task
def sends(x):
    """Needs a broker in its body."""
    return add.delay(x, 1).id


@app.task(bind=True)
def progresses(self):
    """Needs a result backend in its body."""
    self.update_state(state="PROGRESS", meta={"percent": 50})


@app.task
def strange():
    return {"when": object()}


@app.task
def environment(*names):
    return {name: os.environ.get(name) for name in names}


@app.task
def size_of(text):
    return len(text)


@app.task
def disk_lists(path):
    return json.loads(Path(path).read_text())


time.sleep(float(os.environ.get("SHOP_SLOW", "0")))

if os.environ.get("SHOP_BROKEN"):
    import fonts_of_the_shop  # noqa: F401 - is not there


@app.task(
    pod_override={
        "spec": {"containers": [{"env": [{"name": "COLOUR", "value": "red"}, {"name": "SIZE", "value": "L"}]}]}
    }
)
def dressed():
    """Its pods are dressed by the task itself."""
    return {name: os.environ.get(name) for name in ("COLOUR", "SIZE")}


@app.task(bind=True, max_retries=1)
def dressed_twice(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return [self.request.retries, os.environ.get("COLOUR")]


@app.task
def leaves(code):
    os._exit(code)


if not os.environ.get("SHOP_OLD"):

    @app.task
    def newest():
        return "new"


@app.task
def forges(kind):
    """Leaves an outcome that is none, or one of another task."""
    foreign = {"v": 1, "id": "another", "retries": 0, "state": "SUCCESS", "value": "forged"}
    text = "Segmentation fault\x00\xff" if kind == "garbage" else json.dumps(foreign)
    Path(os.environ.get("PODYARD_TERMINATION_PATH") or "/dev/termination-log").write_text(text)
    os._exit(0)


@app.task(bind=True)
def replaces(self, run, page, way, queue):
    """Replaces itself until the third page: by itself, or at the end of a chain, a chord, or both."""
    note(run, f"page {page}")
    if page == 3:
        return page

    def following():
        return replaces.si(run, page + 1, way, queue).set(queue=queue)

    def step(number):
        return add.si(number, 0).set(queue=queue)

    ways = {
        "task": following,
        "chain": lambda: chain(step(1), following()),
        "chord": lambda: chord([step(1), step(2)], following()),
        "nested": lambda: chain(step(0), group(step(1), step(2)), following()),
    }
    return self.replace(ways[way]())


@app.task(bind=True)
def replaces_by_group(self, queue):
    """Its result is what the group gathers."""
    return self.replace(group(add.si(number, number).set(queue=queue) for number in (1, 2)))


@app.task(bind=True)
def adds_to_chord(self, run, queue):
    """One more part for the chord whose part it is."""
    note(run, "part")
    return self.add_to_chord(add.si(20, 22).set(queue=queue)) and 1


@app.task
def gathers(values):
    return sorted(values)
