"""Rules: which queues of an Airflow installation are a dispatcher's.

The rules of `podyard.toml` (or `PODYARD_QUEUES__…`) decide. Where none is written, the queue that Airflow's own option
`[celery_kubernetes_executor] kubernetes_queue` names is the one rule, so that a configuration of Airflow 2 goes on to
work. The executor, the log reader, the dispatcher and `podyard airflow check` ask here. Pure but for `load`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from routing import router
from routing.config import settings

START = "podyard dispatcher --airflow"
"""What people start whose pod queues nobody consumes."""
VARIABLE = "AIRFLOW__CELERY_KUBERNETES_EXECUTOR__KUBERNETES_QUEUE"
"""How the option is spelled in the environment, for processes that do not import Airflow."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of an installation."""

    router: router.Router
    source: Mapping[str, str]
    """Key of the settings -> where it was written; keys that nobody wrote are missing."""

    def is_pod_queue(self, queue: str | None) -> bool:
        """Whether tasks of this queue run in pods of a dispatcher."""
        return self.router.route(queue).side == "kubernetes"

    def pattern_of(self, queue: str | None) -> str | None:
        """The pattern that alone makes this queue one of pods; None where a rule has its exact name."""
        name = self.router.route(queue).rule
        rule = next((rule for rule in self.router.rules if rule.name == name), None)
        return name if rule is not None and rule.is_pattern and rule.side == "kubernetes" else None


def load(*, kubernetes_queue: str | None = None) -> Rules:
    """The rules of this process. Raises SettingsError with every mistake.

    `kubernetes_queue` is what Airflow's configuration says, for the case that no rule is written.
    """
    return of(settings.load(), kubernetes_queue=kubernetes_queue)


def of(known: settings.Settings, *, kubernetes_queue: str | None = None) -> Rules:
    """The rules that settings hold, or the one of Airflow's configuration."""
    # The default rule `kubernetes` has no source: only what somebody wrote counts here.
    if known.rule_source or not kubernetes_queue:
        return Rules(router=known.router, source=known.source)
    profile = known.router.route(router.DEFAULT_RULE).profile
    rule = router.QueueRule(name=kubernetes_queue, side="kubernetes", profile=profile)
    return Rules(router=router.Router([rule]), source=known.source)


def too_long(rules: Rules, *, queued_timeout_s: float) -> list[str]:
    """One line for each deadline that somebody wrote and that Airflow does not let come: it takes the task back first.

    Airflow counts a task as queued until its body runs, so waiting for a slot, for a node and for an image is part of
    it.
    """
    lines = []
    for rule in rules.router.rules:
        if rule.side != "kubernetes":
            continue
        for key in ("schedule_timeout_s", "startup_timeout_s"):
            limit_s = getattr(rule.profile, key)
            # A default that is longer is nobody's mistake: Airflow's limit comes first then, as it does without us.
            if f"queues.{rule.name}.{key}" in rules.source and (limit_s == 0 or limit_s > queued_timeout_s):
                lines.append(
                    f"queues.{rule.name}.{key} = {limit_s:g} is longer than Airflow's [scheduler] task_queued_timeout ="
                    f" {queued_timeout_s:g}: Airflow takes such a task back first; raise the one or lower the other"
                )
    return lines
