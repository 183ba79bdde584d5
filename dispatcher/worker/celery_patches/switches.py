"""Switches: each change that we make to Celery and kombu for speed or safety can be taken back by a setting.

`[celery_patches]` of an installation's settings, `app.conf.podyard_celery_patches` of a plain Celery application, and
`PODYARD_CELERY_PATCHES__…` variables, which win. A patch asks when it would begin to act.
"""

import os
from collections.abc import Mapping
from typing import Any

PATCHES: Mapping[str, str] = {
    "ack_batching": "acknowledgements of one turn of the event loop leave in one transaction, by a client that is kept",
    "atomic_take": "a message is taken from a Redis queue and noted as unacknowledged in one step",
    "event_batching": "events of tasks leave ten times a second instead of in each turn of the event loop",
    "store_script": "an outcome reaches Celery's own Redis result backend by one round trip instead of two",
}
"""Name -> what it does. All are on."""
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def is_on(app: Any, name: str, *, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a patch of `PATCHES` is to be used in this process. Raises ValueError for a word that is no answer."""
    # First, so that an operator can take a patch back without a new image.
    given: Any = environ.get(f"PODYARD_CELERY_PATCHES__{name.upper()}")
    if given is None:
        given = (app.conf.get("podyard_celery_patches") or {}).get(name, True)
    known = _WORDS.get(str(given).lower())
    if known is None:
        raise ValueError(f"celery_patches.{name} = {given!r}: must be true or false")
    return known
