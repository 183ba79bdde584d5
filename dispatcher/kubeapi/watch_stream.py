"""The watch stream: pieces of bytes -> events, one for each line. Pure."""

from collections.abc import AsyncIterator
from typing import Any

from dispatcher.kubeapi import answers


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The events of a watch; a line that is none comes as an event of the type `UNREADABLE`."""
    async for line in lines(pieces):
        yield answers.watch_event(line)


async def lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of any length without their ends, none of them empty: a pod may have 1.5 MB. A last half one is dropped."""
    rest = b""
    async for piece in pieces:
        # Pieces are what a socket read gave: several events, or a part of one. What a cut stream leaves in `rest`
        # comes again with the next watch, which begins at the last whole event's version.
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
