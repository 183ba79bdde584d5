"""From a received attempt to one that can be launched: its manifest is built before it waits.

What cannot be launched fails at once, alone, with the reason.
"""

import msgspec

from dispatcher.attempts.attempt import Attempt, Launch, Pod
from dispatcher.manifests import builder, message_secret, quota_resources
from dispatcher.options import Options


def prepare(attempt: Attempt, *, options: Options, owner: str) -> tuple[Pod, Launch]:
    """The name of its pod, and what the create needs. Raises whatever a template, an override or a value does."""
    built = builder.build(
        attempt.message,
        profile=attempt.profile,
        options=options,
        owner=owner,
        task_options=attempt.task_options,
        deadline_s=attempt.timeout_s,
        soft_limit_s=attempt.soft_timeout_s,
    )
    launch = Launch(
        manifest=msgspec.json.encode(built),
        has_secret=message_secret.name_in(built) is not None,
        resources=quota_resources.of(built),
    )
    return Pod(namespace=built["metadata"]["namespace"], name=built["metadata"]["name"]), launch
