"""How Celery is configured for each role. Nothing here connects."""

from pathlib import Path

import pytest

from dispatcher.options import Options
from routing.config import settings
from routing.worker import celery_app

ROLES: tuple[celery_app.Role, ...] = ("worker", "dispatcher", "scheduler")


@pytest.fixture
def given(tmp_path: Path) -> settings.Settings:
    config = tmp_path / "podyard.toml"
    config.write_text(
        'deployment = "d1"\n[queues."gpu-*"]\nside = "kubernetes"\nnamespace = "gpu"\n[queues.plain]\nside = "celery"\n'
    )
    return settings.load(config, environ={}, cwd=tmp_path)


@pytest.mark.parametrize("role", ROLES)
def test_messages_and_results_are_json_never_pickle(given: settings.Settings, role: celery_app.Role) -> None:
    conf = celery_app.build(given, role).conf
    assert (conf.task_serializer, conf.result_serializer) == ("json", "json")
    assert (conf.accept_content, conf.result_accept_content) == (["json"], ["json"])


@pytest.mark.parametrize(
    ("role", "tasks", "tracks"),
    [
        ("worker", {"routing.run"}, False),
        ("dispatcher", {"routing.run", "dispatcher.pod"}, True),
        ("scheduler", set(), False),
    ],
)
def test_each_role_has_its_tasks(
    given: settings.Settings, role: celery_app.Role, tasks: set[str], tracks: bool
) -> None:
    app = celery_app.build(given, role)
    assert {name for name in app.tasks if name.startswith(("routing.", "dispatcher."))} == tasks
    assert app.conf.task_track_started is tracks
    assert app.conf.task_acks_late is False
    assert app.conf.task_default_queue == "default"
    assert app.backend.keys.reports == "podyard:d1:reports"


def test_a_dispatcher_knows_its_queues(given: settings.Settings) -> None:
    found = celery_app.build(given, "dispatcher").conf.podyard
    assert isinstance(found, Options)
    assert found.deployment == "d1"
    assert set(found.namespaces) == {"default", "gpu"}
    assert found.profile_for("gpu-large").namespace == "gpu"
    with pytest.raises(LookupError, match="is Celery's"):
        found.profile_for("plain")


@pytest.mark.parametrize(
    ("url", "spelled"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("rediss://h:1/2", "rediss://h:1/2"),
        ("redis+socket:///run/v.sock?virtual_host=1", "socket:///run/v.sock?virtual_host=1"),
    ],
)
def test_the_result_backend_is_ours(url: str, spelled: str) -> None:
    assert celery_app.result_backend_url(url) == f"{celery_app.BACKEND}+{spelled}"
