"""The callback of a chord is sent though the broker or the dispatcher goes away at that moment. On Celery's thread.

Whoever returns the last part of a chord sends its callback and deletes the chord's data, whether that worked or not.
From Celery 5.7 on the Redis backend notes first who is about to do so: a claim. Here the claim is released and the data
stay where the callback could not be sent; and a part that finds a claim of somebody else comes again, until the chord
is done or the claim has expired, since its owner may have been killed. With other backends, and before 5.7, a callback
that was not sent is kept in memory alone.
"""

from contextlib import suppress
from typing import Any

from celery.backends.redis import RedisBackend

from dispatcher.worker.sending import ReplayAgain, Sending

# Compared first: our claim may have expired, and be another dispatcher's by now.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def guard(backend: Any, sending: Sending) -> None:
    """Puts itself before a backend's steps of a chord, once."""
    # Celery caches its own script under this name once it has been used: the name alone says nothing.
    known = (vars(backend).get("on_chord_part_return"), vars(backend).get("_chord_cleanup_script"))
    if any(isinstance(one, _Counted | _Cleanup) for one in known):
        return
    if isinstance(backend, RedisBackend) and hasattr(backend, "_chord_cleanup_script"):
        backend._chord_part_return_script = _Part(backend, sending)
        backend._chord_cleanup_script = _Cleanup(backend, sending)
    else:
        backend.on_chord_part_return = _Counted(backend, sending)


class _Part:
    """Celery's script that counts a part and claims the chord if it was the last one."""

    def __init__(self, backend: Any, sending: Sending) -> None:
        self._celerys = backend._chord_part_return_script
        self._sending = sending

    def __call__(self, *, keys: Any, args: Any, client: Any) -> Any:
        answer = count, more, size, is_claimed = self._celerys(keys=keys, args=args, client=client)
        # All parts are there and somebody else has the claim. A killed one would never send
        # the callback, so who comes last comes again until it is sent or the claim is free.
        if self._sending.is_replaying and size and not is_claimed and count == int(size) + int(more or 0):
            raise ReplayAgain(RuntimeError("the callback of this task's chord is being sent by somebody else"))
        return answer


class _Cleanup:
    """Celery's script that deletes a chord's data, which it calls also where sending the callback failed."""

    def __init__(self, backend: Any, sending: Sending) -> None:
        self._backend = backend
        self._celerys = backend._chord_cleanup_script
        self._release = backend.client.register_script(_RELEASE)
        self._sending = sending

    def __call__(self, *, keys: Any, args: Any, client: Any) -> Any:
        # Celery calls this in a `finally`, whether the callback was sent or not: only we know which.
        if not self._sending.has_failed:
            return self._celerys(keys=keys, args=args, client=client)
        with suppress(*self._backend.connection_errors):  # then the claim expires by itself; the replay waits for that
            # The claim and its token, which Celery gives first.
            self._release(keys=keys[:1], args=args[:1], client=client)
        # Else Celery logs that the claim was lost.
        return 1


class _Counted:
    """`on_chord_part_return` of a backend without claims: it would count a part of a replay that comes again twice."""

    def __init__(self, backend: Any, sending: Sending) -> None:
        self._celerys = backend.on_chord_part_return
        self._sending = sending

    def __call__(self, request: Any, state: Any, result: Any, **options: Any) -> None:
        # A counter in the backend: a replay that comes again would count this part as another one.
        with self._sending.once(str(request.id)) as is_due:
            if is_due:
                self._celerys(request, state, result, **options)
