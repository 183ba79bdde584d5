"""The graph of a DAG's tasks: whether it has a cycle. Pure."""

from collections.abc import Iterable, Mapping


def find_cycle(upstream: Mapping[str, Iterable[str]]) -> tuple[str, ...] | None:
    """A cycle as task ids in the order of the arrows, the first one repeated at the end; None if there is none.

    `upstream` maps each task id to those before it. Not recursive: a chain of a hundred thousand tasks is fine.
    """
    finished: set[str] = set()
    for start in upstream:
        cycle = _search(start, upstream, finished)
        if cycle:
            return cycle
    return None


def _search(start: str, upstream: Mapping[str, Iterable[str]], finished: set[str]) -> tuple[str, ...] | None:
    path = {start: None}
    stack = [(start, iter(upstream[start]))]
    while stack:
        task_id, before = stack[-1]
        following = next((one for one in before if one not in finished), None)
        if following is None:
            finished.add(task_id)
            path.pop(task_id, None)
            stack.pop()
        elif following in path:
            ids = list(path)
            loop = ids[ids.index(following) :]
            return (following, *reversed(loop))
        else:
            path[following] = None
            stack.append((following, iter(upstream.get(following, ()))))
    return None
