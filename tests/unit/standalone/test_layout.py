"""What one machine brings along, and what Flower may be told."""

from pathlib import Path

import pytest

from routing.config import sections, settings
from routing.standalone import flower, layout, part_errors

CHECKS = layout.Checks(is_answering=bool, is_scheduling=lambda: True)


def layout_of(folder: Path, environ: dict[str, str] | None = None) -> layout.Layout:
    known = settings.load(environ=environ or {}, cwd=folder)
    return layout.Layout.of(known, environment={}, with_flower=True)


def test_without_settings_everything_is_brought_along(tmp_path: Path) -> None:
    """Valkey, the local cluster and four parts of ours, each after what it needs."""
    parts = layout_of(tmp_path).parts(CHECKS)
    assert {part.name: part.after for part in parts} == {
        "valkey": (),
        "local-cluster": (),
        "scheduler": ("valkey",),
        "worker": ("valkey",),
        "dispatcher": ("valkey", "local-cluster"),
        "flower": ("valkey",),
    }


def test_a_broker_and_a_cluster_of_the_users_own_are_used(tmp_path: Path) -> None:
    """What the settings name is not brought along, and `embedded.toml` does not speak of it."""
    own = {
        "PODYARD_BROKER__URL": "redis://broker/0",
        "PODYARD_RESULTS__URL": "redis://broker/1",
        "PODYARD_KUBERNETES__KUBECONFIG": "/etc/kubeconfig",
    }
    found = layout_of(tmp_path, own)
    assert [part.name for part in found.parts(CHECKS)] == ["scheduler", "worker", "dispatcher", "flower"]
    assert found.sections().keys() == {"dags", "flower"}


def test_every_kubernetes_queue_finds_the_dag_files(tmp_path: Path) -> None:
    """Pods of the local cluster are processes: they read DAG files where everybody does, whatever their queue."""
    (tmp_path / "podyard.toml").write_text('[queues."gpu-*"]\nside = "kubernetes"\n[queues.plain]\nside = "celery"\n')
    found = layout_of(tmp_path).sections()["queues"]
    assert {name: rule["env"] for name, rule in found.items()} == {
        "gpu-*": {"PODYARD_DAGS__FOLDER": str(tmp_path / "dags")},
        "kubernetes": {"PODYARD_DAGS__FOLDER": str(tmp_path / "dags")},
    }


def test_flower_gets_a_password_where_the_user_gave_none(tmp_path: Path) -> None:
    """Whoever reaches its API can run programs; a loopback port is open to every user and web page of the machine."""
    assert layout_of(tmp_path).sections()["flower"]["basic_auth"].startswith("podyard:")
    assert "flower" not in layout_of(tmp_path, {"PODYARD_FLOWER__BASIC_AUTH": "me:mine"}).sections()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_flower_without_a_password_is_refused_where_others_reach_it(address: str) -> None:
    """The error names the setting and both ways out."""
    with pytest.raises(part_errors.EmbeddedError, match=r"flower\.address = .*set flower\.basic_auth.*127\.0\.0\.1"):
        flower.command_line(sections.Flower(address=address), environ={})


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_flower_on_loopback_needs_no_password(address: str) -> None:
    """Its API stays off then, by its own rule."""
    told = flower.command_line(sections.Flower(address=address), environ={})
    assert told == [f"--address={address}", "--port=5555"]


def test_flower_with_a_password_may_listen_anywhere() -> None:
    """A password from Flower's own variable counts too."""
    told = flower.command_line(sections.Flower(address="0.0.0.0", basic_auth="me:mine"), environ={})
    assert told == ["--address=0.0.0.0", "--port=5555", "--basic_auth=me:mine"]
    assert flower.command_line(sections.Flower(address="0.0.0.0"), environ={"FLOWER_BASIC_AUTH": "me:mine"})
