"""A file of faults, JSON or YAML, read at the start and again whenever it changes."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import yaml

from dispatcher.localcluster.faults import controller, kinds

log = logging.getLogger(__name__)
_LOOK_S = 0.5


def read(path: Path) -> kinds.Script:
    """The file's faults; raises FaultError that names the file."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise kinds.FaultError(f"{path} cannot be read as faults: {error}") from error
    try:
        return kinds.read_script(content if content is not None else [])
    except kinds.FaultError as error:
        raise kinds.FaultError(f"{path}: {error}") from None


async def follow(path: Path, target: controller.FaultController) -> None:
    """Plays the file anew at each change; a change that cannot be read leaves what there was. Until cancelled."""
    seen = _stamp(path)
    while True:
        await asyncio.sleep(_LOOK_S)
        now = _stamp(path)
        if now == seen:
            continue
        seen = now
        try:
            target.play(read(path))
        except kinds.FaultError as error:
            log.warning("faults stay as they were: %s", error)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
