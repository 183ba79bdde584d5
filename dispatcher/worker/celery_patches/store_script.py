"""One script stores a result: outcomes reach Celery's own Redis result backend by one round trip instead of two.

Celery 5.7 reads what stands before it stores an outcome, so that nothing overwrites a success. Here one script looks,
stores and announces; what is stored is the same. Where it finds a success, or anything is unusual, Celery's own way is
taken. Other backends are left alone. Used by the replay, on the hub's thread.
"""

import logging
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str

logger = logging.getLogger(__name__)

_STORE = """
local old = redis.call('GET', KEYS[1])
if old then
  if ARGV[3] == '0' then return 0 end
  local is_read, meta = pcall(cjson.decode, old)
  if not is_read or type(meta) ~= 'table' or meta['status'] == 'SUCCESS' then return 0 end
end
if tonumber(ARGV[2]) > 0 then redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1]) end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"""
_CELERYS = ("_store_result", "_set_with_state", "set", "_set")
"""What the script stands for; a backend that does one of these in its own way keeps it."""


def shorten(backend: Any) -> None:
    """Lets a backend store by one round trip, where it is Celery's for Redis as it is."""
    # In its own attributes: this was done already, or an application has put something of its own there.
    if not isinstance(backend, RedisBackend) or "_store_result" in vars(backend):
        return
    if all(getattr(type(backend), name) is getattr(RedisBackend, name) for name in _CELERYS):
        backend._store_result = _Storing(backend)


class _Storing:
    """The backend's `_store_result`."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._celerys = backend._store_result
        self._script = backend.client.register_script(_STORE)
        self._is_json = int(backend.serializer == "json" and not getattr(backend, "compression", None))
        """Whether a script can read what stands, such as STARTED."""
        self._is_refused = False
        """The server runs no scripts for us."""

    def __call__(
        self, task_id: Any, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if not self._is_refused and self._stored(task_id, result, state, traceback, request):
            return result
        return self._celerys(task_id, result, state, traceback, request=request, **kwargs)

    def _stored(self, task_id: Any, result: Any, state: str, traceback: Any, request: Any) -> bool:
        """Whether it is stored now; if not, nothing happened. A server that is away raises: the replay comes again."""
        backend = self._backend
        # Celery's own words and encoding: who reads the result cannot see by which way it came.
        meta = backend._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        text = backend.encode({**meta, "task_id": bytes_to_str(task_id)})
        failure_expires = getattr(backend, "failure_expires", None)  # new in Celery 5.7
        expires_s = (failure_expires if state == states.FAILURE else None) or backend.expires or 0
        try:
            key = backend.get_key_for_task(task_id)
            # 0: something stands there that Celery's way has to judge; nothing was written.
            return bool(self._script(keys=[key], args=[text, int(expires_s), self._is_json], client=backend.client))
        except backend.redis.ResponseError as error:
            is_forbidden = isinstance(error, backend.redis.exceptions.NoPermissionError)
            if is_forbidden or "unknown command" in str(error).lower():
                logger.info("the result backend runs no scripts, outcomes take two round trips: %s", error)
                self._is_refused = True
            return False  # where it refuses more than scripts, Celery's way says so
