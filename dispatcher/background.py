"""Background: the loop's tasks that nobody waits for, kept from being collected as garbage while they run."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Holds tasks until they are done. On the loop's thread."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` beside everything else; cancelled with the loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        # asyncio itself holds tasks by weak references only:
        # https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """Ends what still works, and returns when it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        # `return_exceptions`: a stop waits for all of them, also behind one that failed.
        await asyncio.gather(*tasks, return_exceptions=True)
