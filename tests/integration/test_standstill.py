"""A dispatcher that was stopped and goes on says nothing a second time. Real processes, SIGSTOP and SIGCONT."""

import json
import os
import signal
from typing import Any

from tests import parts
from tests.integration.yard_parts import Yard, pods_of, runs

WAIT_S = 40


def linked(yard: Yard, task: str, *args: object, **options: Any) -> tuple[Any, str, str]:
    """A task with a callback and an error callback; gives their ids, too."""
    ids = f"{task}-{args}-well", f"{task}-{args}-badly"
    on_success, on_error = (yard.signature("nap", 0, immutable=True, queue="calls").set(task_id=one) for one in ids)
    return yard.send(task, *args, link=on_success, link_error=on_error, **options), *ids


def calls(yard: Yard) -> list[str]:
    """The ids of the callbacks that were sent, each as often as it was sent."""
    with yard.client.connection_for_read() as connection:
        waiting = connection.default_channel.client.lrange("calls", 0, -1)
    return [json.loads(text)["headers"]["id"] for text in waiting]


def test_D11_a_dispatcher_that_goes_on_tells_nothing_that_another_has_told(yard: Yard) -> None:
    """It was stopped while two pods ran; another took them over, and told their ends.

    What waits for it when it goes on: the end of a pod in its watch, and a hard time limit that passed meanwhile.
    """
    first = yard.dispatcher(name="first")
    quick, quick_link, _ = linked(yard, "nap", 2)
    slow, slow_link, _ = linked(yard, "nap", 3, time_limit=8)
    parts.eventually(lambda: runs(yard, quick.id) == runs(yard, slow.id) == 1, WAIT_S)
    os.kill(first.pid, signal.SIGSTOP)
    yard.dispatcher(name="second")
    parts.eventually(lambda: (quick.state, slow.state) == ("SUCCESS", "SUCCESS"), WAIT_S)
    parts.eventually(lambda: not pods_of(yard), WAIT_S)
    told = calls(yard)
    assert sorted(told) == sorted([quick_link, slow_link])

    os.kill(first.pid, signal.SIGCONT)
    node = f"first@{yard.deployment}"
    inspect = yard.client.control.inspect([node], timeout=1)

    def is_done() -> bool:
        stats = (inspect.stats() or {}).get(node)
        pool = stats["pool"] if stats else {"pods-in-flight": 1}
        return not pool["pods-in-flight"] and not pool["ended-not-stored"] and not inspect.active()[node]

    parts.eventually(is_done, WAIT_S, what="the first one has let go of both")
    assert calls(yard) == told
    assert (quick.state, slow.state) == ("SUCCESS", "SUCCESS")
