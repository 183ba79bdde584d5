"""Which queues are a dispatcher's: rules first, Airflow's own option where there is none."""

from pathlib import Path

import pytest

from routing.airflow import rules
from routing.config import settings


def load(text: str, folder: Path, *, queue: str | None = None) -> rules.Rules:
    file = folder / "podyard.toml"
    file.write_text(text)
    return rules.of(settings.load(file, environ={}, cwd=folder), kubernetes_queue=queue)


def test_without_a_rule_airflows_option_names_the_queue(tmp_path: Path) -> None:
    """As CeleryKubernetesExecutor did: this one queue, by its exact name."""
    found = load("", tmp_path, queue="pods")
    assert [found.is_pod_queue(name) for name in ("pods", "kubernetes", "default", None, "Pods")] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_without_either_the_queue_kubernetes_is_one_of_pods(tmp_path: Path) -> None:
    """Podyard's default rule."""
    assert load("", tmp_path).is_pod_queue("kubernetes")


def test_a_rule_that_is_written_wins_over_airflows_option(tmp_path: Path) -> None:
    """All of them: a half that is ours and a half that is theirs would be no rule at all."""
    found = load('[queues."gpu-*"]\nside = "kubernetes"\n', tmp_path, queue="pods")
    assert [found.is_pod_queue(name) for name in ("gpu-1", "kubernetes", "pods")] == [True, True, False]


def test_a_queue_that_only_a_pattern_matches_is_known(tmp_path: Path) -> None:
    """A dispatcher must be told of it by name."""
    found = load('[queues."gpu-*"]\nside = "kubernetes"\n[queues."slow-*"]\nside = "celery"\n', tmp_path)
    assert [found.pattern_of(name) for name in ("gpu-1", "kubernetes", "slow-1", "default")] == [
        "gpu-*",
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(("value", "is_told"), [("600", False), ("601", True), ("0", True)])
def test_a_deadline_that_never_comes_is_told(tmp_path: Path, value: str, is_told: bool) -> None:
    """0 is for ever. Only what somebody wrote: the defaults are longer than Airflow's, and that is as it should be."""
    found = load(f'[queues.kubernetes]\nside = "kubernetes"\nstartup_timeout_s = {value}\n', tmp_path)
    lines = rules.too_long(found, queued_timeout_s=600)
    assert [line.partition(" ")[0] for line in lines] == (["queues.kubernetes.startup_timeout_s"] if is_told else [])
