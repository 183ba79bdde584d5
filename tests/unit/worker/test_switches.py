"""Each change to Celery can be switched off: by the application, by the settings, by a variable, which wins."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu.asynchronous import Hub

from dispatcher.settings import sections
from dispatcher.worker.celery_patches import ack_batching, atomic_take, switches


def app_with(patches: dict[str, Any] | None) -> Celery:
    app = Celery("switched", set_as_current=False)
    app.conf.podyard_celery_patches = patches
    return app


@pytest.mark.parametrize("name", switches.PATCHES)
def test_a_patch_is_on_unless_somebody_says_otherwise(name: str) -> None:
    """A variable wins over what the application says."""
    variable = f"PODYARD_CELERY_PATCHES__{name.upper()}"
    assert switches.is_on(app_with(None), name, environ={})
    assert not switches.is_on(app_with({name: False}), name, environ={})
    assert not switches.is_on(app_with({name: True}), name, environ={variable: "off"})
    assert switches.is_on(app_with({name: False}), name, environ={variable: "true"})


def test_a_word_that_is_no_answer_is_named() -> None:
    """With the key, the value and what is allowed."""
    with pytest.raises(ValueError, match=r"celery_patches\.store_script = 'perhaps': must be true or false"):
        switches.is_on(app_with({"store_script": "perhaps"}), "store_script", environ={})


def test_the_settings_have_a_key_for_each() -> None:
    """And none for what is no patch; all are on."""
    assert dict(vars(sections.CeleryPatches())) == dict.fromkeys(switches.PATCHES, True)


@pytest.mark.parametrize(
    ("step", "name"), [(atomic_take.TakeStep, "atomic_take"), (ack_batching.FewerTrips, "ack_batching")]
)
def test_a_step_that_is_switched_off_leaves_the_channel_alone(step: Any, name: str) -> None:
    """The channel is kombu's, down to the last attribute."""
    channel = object.__new__(atomic_take.redis.Channel)
    channel._closing = True
    before = dict(vars(channel))
    parent = SimpleNamespace(app=app_with({name: False}), hub=Hub(), task_consumer=SimpleNamespace(channel=channel))

    one = step(parent)
    one.start(parent)
    one.stop(parent)

    assert vars(channel) == before
