"""The parameters of KubernetesPodOperator: which there are, what an author may write, and what travels instead.

`TABLE` is the whole list, in Airflow's words. What an author writes may hold objects of the Kubernetes client (known by
their shape, the library is not imported), `dispatcher.Secret`, `Volume`, `VolumeMount`, results of tasks and templates;
what travels is plain JSON with the API's own spelling, checked field by field while the DAG is loaded. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from routing.authoring import copies, rendering, xcom
from routing.authoring.spec import TEMPLATE, WHOLE, XCOM
from routing.errors import InvalidDag

Reader = Callable[[str, Any], Any]
"""(where, value) -> the value as plain JSON; raises InvalidDag that begins with `where`."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: `read` checks it; in a templated one texts are rendered, and may be results of tasks."""

    read: Reader
    is_templated: bool = False
    shape: str | None = None
    """What a result must be that is its whole value (`spec.SHAPES`); None where it is text."""


def plain(value: Any) -> Any:
    """A copy in which objects of the Kubernetes client are mappings with the API's spelling; the rest is untouched."""
    if copies.is_client_object(value):
        fields = ((spelling, getattr(value, name, None)) for name, spelling in type(value).attribute_map.items())
        return {spelling: plain(part) for spelling, part in fields if part is not None}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def read(where: str, name: str, value: Any) -> Any:
    """What travels for a parameter whose value went through `plain`.

    A result stands there as `{XCOM: task id}`, a template as `{TEMPLATE: text}`. Raises InvalidDag.
    """
    parameter = TABLE[name]
    here = f"{where}: {name}"
    references = list(xcom.references(value))
    if not parameter.is_templated:
        if references:
            raise InvalidDag(f"{here} cannot hold {references[0]!r}: its value is needed before the task runs")
        return parameter.read(here, value)
    # A list or mapping that is not known yet has no parts to check; the scheduler checks it when it is there.
    if isinstance(value, xcom.XComArg) and parameter.shape is not None:
        return {WHOLE: [value.operator.task_id, parameter.shape]}
    # While it is checked, a result is a text like any other; its mark holds a character that no author's text has.
    marks = {_mark(one): one.operator.task_id for one in references}
    try:
        return _marked(parameter.read(here, _with_marks(value)), marks)
    except InvalidDag as error:
        message = str(error)
        for one in references:
            message = message.replace(repr(_mark(one)), f"the result of task {one.operator.task_id!r}")
        raise InvalidDag(message, line=error.line) from None


def _mark(one: xcom.XComArg) -> str:
    return f"\0result of {one.operator.task_id}"


def _with_marks(value: Any) -> Any:
    if isinstance(value, xcom.XComArg):
        return _mark(value)
    if isinstance(value, dict):
        return {key: _with_marks(part) for key, part in value.items()}
    return [_with_marks(part) for part in value] if isinstance(value, list) else value


def _marked(value: Any, marks: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        if value in marks:
            return {XCOM: marks[value]}
        return {TEMPLATE: value} if rendering.is_template(value) else value
    if isinstance(value, dict):
        return {key: _marked(part, marks) for key, part in value.items()}
    return [_marked(part, marks) for part in value] if isinstance(value, list) else value


# --- readers


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidDag(f"{where} must be a non-empty string, not {value!r}")
    return value


def _any_text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidDag(f"{where} must be a string, not {value!r}; write it in quotation marks")
    return value


def _path(where: str, value: Any) -> str:
    return _text(where, str(value) if hasattr(value, "__fspath__") else value)


def _texts(where: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise InvalidDag(f"{where} must be a list of strings, not {value!r}")
    return [_any_text(f"{where}[{index}]", part) for index, part in enumerate(value)]


def _names(where: str, value: Any) -> list[str]:
    return [_text(f"{where}[{index}]", part) for index, part in enumerate(_texts(where, value))]


def _text_mapping(where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidDag(f"{where} must be a mapping of strings to strings, not {value!r}")
    return {_text(f"{where}, a key", key): _any_text(f"{where}[{key!r}]", part) for key, part in value.items()}


def _labels(where: str, value: Any) -> dict[str, str]:
    """As Airflow does, a label whose value is None is there, and empty."""
    if isinstance(value, Mapping):
        value = {key: "" if part is None else part for key, part in value.items()}
    return _text_mapping(where, value)


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidDag(f"{where} must be True or False, not {value!r}")
    return value


def _seconds(where: str, value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise InvalidDag(f"{where} must be a number of seconds above 0, not {value!r}")
    return float(value)


def _integer(least: int) -> Reader:
    def read_integer(where: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidDag(f"{where} must be an integer number of seconds, {least} or more, not {value!r}")
        return value

    return read_integer


def _choice(*known: str) -> Reader:
    def read_choice(where: str, value: Any) -> str:
        value = getattr(value, "value", value)  # an Enum's member is fine
        if value not in known:
            raise InvalidDag(f"{where} must be one of {', '.join(known)}, not {value!r}")
        return str(value)

    return read_choice


def _exit_codes(where: str, value: Any) -> list[int]:
    codes = sorted(value) if isinstance(value, set | frozenset) else value if isinstance(value, list) else [value]
    for code in codes:
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 255:
            raise InvalidDag(f"{where} must be an exit code (0 to 255) or a list of them, not {value!r}")
    return codes


def _containers(where: str, value: Any) -> list[str] | bool:
    """True for all, or names."""
    if value is True:
        return True
    if value is False:
        raise InvalidDag(f"{where} must be True, a name or a list of names; to fetch no log, use get_logs=False")
    return _names(where, [value] if isinstance(value, str) else value)


def _env_vars(where: str, value: Any) -> Any:
    """A mapping, or the list that the Kubernetes API knows, of mappings or `V1EnvVar`."""
    if isinstance(value, Mapping):
        return _text_mapping(where, value)
    if not isinstance(value, list):
        raise InvalidDag(f"{where} must be a mapping, or a list of mappings with name and value, not {value!r}")
    for index, entry in enumerate(value):
        if not isinstance(entry, Mapping) or ("value" in entry and "name" not in entry):
            raise InvalidDag(f"{where}[{index}] must be a mapping with name and value, not {entry!r}")
    return _env(where, value)


def _api(kind: str) -> Reader:
    """Reads a value of a type of the Kubernetes API: `Affinity`, `[Toleration]`."""

    def read_api(where: str, value: Any) -> Any:
        return _of_kind(where, value, kind)

    return read_api


def _of_kind(where: str, value: Any, kind: str) -> Any:
    # Its table of fields is needed only where something is written the API's way.
    from dispatcher.manifests import pod_schema

    try:
        return pod_schema.plain_value(value, kind)
    except pod_schema.WrongField as wrong:
        below = pod_schema.dotted(wrong.path)
        dot = "." if below and not below.startswith("[") else ""
        raise InvalidDag(f"{where}{dot}{below}: {wrong.problem}") from None


_env = _api("[EnvVar]")


def _parts(reader: Reader, *at: str | int) -> Reader:
    """A list in which `dispatcher.Volume` and `VolumeMount` may stand for what they mean at this place of a Pod."""

    def read_parts(where: str, value: Any) -> Any:
        entries = value if isinstance(value, list) else [value] if hasattr(value, "to_override") else value
        if not isinstance(entries, list):
            raise InvalidDag(f"{where} must be a list, not {value!r}")
        return reader(where, [_opened(f"{where}[{index}]", entry, at) for index, entry in enumerate(entries)])

    return read_parts


def _opened(where: str, entry: Any, at: tuple[str | int, ...]) -> Any:
    if not hasattr(entry, "to_override"):
        return entry
    from dispatcher import errors

    try:
        found = entry.to_override()
        for part in at:
            found = found[part]
    except errors.InvalidPod as error:
        raise InvalidDag(f"{where}: {error}") from None
    except (KeyError, IndexError):
        raise InvalidDag(f"{where} cannot be a {type(entry).__name__}") from None
    return found[0]


def _secrets(where: str, value: Any) -> list[dict[str, Any]]:
    """`dispatcher.Secret`, or mappings with the names of its fields."""
    from dispatcher import Secret, errors

    if not isinstance(value, list):
        raise InvalidDag(f"{where} must be a list of Secret, not {value!r}")
    found = []
    for index, entry in enumerate(value):
        try:
            secret = Secret(**entry) if isinstance(entry, Mapping) else entry
            if not isinstance(secret, Secret):
                raise InvalidDag(f"{where}[{index}] must be a Secret (from dispatcher import Secret), not {entry!r}")
            secret.to_override()
        except (errors.InvalidPod, TypeError) as error:
            raise InvalidDag(f"{where}[{index}]: {error}") from None
        fields = plain(vars(secret))
        found.append({name: part for name, part in fields.items() if part is not None})
    return found


def _pull_secrets(where: str, value: Any) -> list[dict[str, Any]]:
    """References, names, or names in one text with commas between them."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, list):
        value = [{"name": entry} if isinstance(entry, str) else entry for entry in value]
    found: list[dict[str, Any]] = _of_kind(where, value, "[LocalObjectReference]")
    return found


def _affinity(where: str, value: Any) -> Any:
    """One expression may stand for a list of one: Airflow's own first example is written so."""
    return _of_kind(where, _expressions_in_lists(value), "Affinity")


def _expressions_in_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: [part] if key == "matchExpressions" and isinstance(part, dict) else _expressions_in_lists(part)
            for key, part in value.items()
        }
    return [_expressions_in_lists(part) for part in value] if isinstance(value, list) else value


_FLAT_RESOURCES = {
    f"{side}_{word}": (f"{side}s", resource)
    for side in ("request", "limit")
    for word, resource in (
        ("cpu", "cpu"),
        ("memory", "memory"),
        ("ephemeral_storage", "ephemeral-storage"),
        ("gpu", "nvidia.com/gpu"),
    )
}


def _resources(where: str, value: Any) -> Any:
    """As the API has it, or Airflow's first form, which was flat: `{"request_memory": "1Gi", "limit_cpu": 1}`."""
    if isinstance(value, dict) and value and value.keys() <= _FLAT_RESOURCES.keys():
        value = nested_resources(value)
    return _of_kind(where, value, "ResourceRequirements")


def nested_resources(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`{"request_memory": "1Gi"}` as the API has it; other keys are not looked at."""
    nested: dict[str, dict[str, Any]] = {}
    for name, (side, resource) in _FLAT_RESOURCES.items():
        if flat.get(name) is not None:
            nested.setdefault(side, {})[resource] = flat[name]
    return nested


# --- the list


def _default_connection(where: str, value: Any) -> None:
    if value != "kubernetes_default":
        raise InvalidDag(f"{where}: there are no connections; {CLUSTER_BY_QUEUE}")


CLUSTER_BY_QUEUE = "the cluster is that of the dispatcher that consumes the task's queue: write queue=…"

TABLE: Mapping[str, Parameter] = {
    "active_deadline_seconds": Parameter(_integer(1)),
    "affinity": Parameter(_affinity),
    "annotations": Parameter(_text_mapping, is_templated=True, shape="mapping"),
    "arguments": Parameter(_texts, is_templated=True, shape="texts"),
    "automount_service_account_token": Parameter(_flag),
    "base_container_name": Parameter(_text),
    "cluster_context": Parameter(_text, is_templated=True),
    "cmds": Parameter(_texts, is_templated=True, shape="texts"),
    "config_file": Parameter(_path, is_templated=True),
    "configmaps": Parameter(_names, is_templated=True, shape="texts"),
    "container_logs": Parameter(_containers),
    "container_name_log_prefix_enabled": Parameter(_flag),
    "container_resources": Parameter(_resources, is_templated=True, shape="parts"),
    "container_security_context": Parameter(_api("SecurityContext")),
    "dns_config": Parameter(_api("PodDNSConfig")),
    "dnspolicy": Parameter(_choice("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")),
    "do_xcom_push": Parameter(_flag),
    "env_from": Parameter(_api("[EnvFromSource]"), is_templated=True, shape="parts"),
    "env_vars": Parameter(_env_vars, is_templated=True, shape="environment"),
    "full_pod_spec": Parameter(_api("Pod")),
    "get_logs": Parameter(_flag),
    "host_aliases": Parameter(_api("[HostAlias]")),
    "hostname": Parameter(_text, is_templated=True),
    "hostnetwork": Parameter(_flag),
    "image": Parameter(_text, is_templated=True),
    "image_pull_policy": Parameter(_choice("Always", "IfNotPresent", "Never")),
    "image_pull_secrets": Parameter(_pull_secrets),
    "in_cluster": Parameter(_flag),
    "init_container_logs": Parameter(_containers),
    "init_containers": Parameter(_api("[Container]")),
    "labels": Parameter(_labels, is_templated=True, shape="mapping"),
    "log_events_on_failure": Parameter(_flag),
    "name": Parameter(_text, is_templated=True),
    "namespace": Parameter(_text, is_templated=True),
    "node_selector": Parameter(_text_mapping, is_templated=True, shape="mapping"),
    "on_finish_action": Parameter(_choice("delete_pod", "delete_succeeded_pod", "delete_active_pod", "keep_pod")),
    "on_kill_action": Parameter(_choice("delete_pod", "keep_pod")),
    "pod_runtime_info_envs": Parameter(_env),
    "pod_template_dict": Parameter(_api("Pod"), is_templated=True, shape="parts"),
    "pod_template_file": Parameter(_path, is_templated=True),
    "ports": Parameter(_api("[ContainerPort]")),
    "priority_class_name": Parameter(_text),
    "runtime_class_name": Parameter(_text),
    "schedule_timeout_seconds": Parameter(_seconds),
    "schedulername": Parameter(_text),
    "secrets": Parameter(_secrets),
    "security_context": Parameter(_api("PodSecurityContext")),
    "service_account_name": Parameter(_text),
    "skip_on_exit_code": Parameter(_exit_codes),
    "startup_timeout_seconds": Parameter(_seconds),
    "subdomain": Parameter(_text),
    "termination_grace_period": Parameter(_integer(0)),
    "termination_message_policy": Parameter(_choice("File", "FallbackToLogsOnError")),
    "tolerations": Parameter(_api("[Toleration]")),
    "volume_mounts": Parameter(
        _parts(_api("[VolumeMount]"), "spec", "containers", 0, "volumeMounts"),
        is_templated=True,
        shape="parts",
    ),
    "volumes": Parameter(_parts(_api("[Volume]"), "spec", "volumes"), is_templated=True, shape="parts"),
    "xcom_path": Parameter(_text),
    "xcom_sidecar_container_security_context": Parameter(_api("SecurityContext")),
}
"""Name -> how it is read; these travel to the dispatcher, where they were given."""


def _anything(where: str, value: Any) -> None:
    """What is never looked at may be anything."""


_NO_WAITING = "no process waits for a pod, so there is nothing to ask how often"

WITHOUT_EFFECT: Mapping[str, tuple[Reader, Any, str | None]] = {
    "base_container_status_polling_interval": (_seconds, None, _NO_WAITING),
    "deferrable": (_flag, False, "no worker slot is ever held while a pod runs"),
    "durable": (_flag, True, "a pod is always found again after a restart: its name says which attempt it is"),
    "kubernetes_conn_id": (_default_connection, "kubernetes_default", None),
    "log_events_on_startup": (_flag, True, "the record says why a pod waits (`podyard tasks explain`)"),
    "log_pod_spec_on_failure": (
        _flag,
        True,
        "a manifest is never logged, it may hold secrets; `podyard dags render` shows it",
    ),
    "logging_interval": (_anything, None, _NO_WAITING),
    "poll_interval": (_seconds, None, _NO_WAITING),
    "random_name_suffix": (
        _flag,
        True,
        "a pod's name always ends with a hash of its attempt",
    ),
    "startup_check_interval_seconds": (_seconds, None, _NO_WAITING),
    "trigger_kwargs": (_anything, None, "there is no triggerer"),
}
"""Name -> how it is checked, the value that needs no word, and why any other changes nothing here."""

DEPRECATED: Mapping[str, str] = {
    "is_delete_operator_pod": "on_finish_action",
    "node_selectors": "node_selector",
    "pod": "full_pod_spec",
    "reattach_on_restart": "durable",
    "resources": "container_resources",
    "volume": "volumes",
    "xcom_push": "do_xcom_push",
}
"""Old name -> the name that is used now."""


FUNCTIONS: Mapping[str, str] = {
    "callbacks": "let a task downstream do it, or a site's pod_mutation_hook",
    "log_formatter": "container_name_log_prefix_enabled=True marks each line with its container",
    "progress_callback": "`podyard tasks logs` follows the pod",
}
"""Parameters that are code, and what there is instead."""


def renamed(where: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters under the names that are used now, and a sentence for each that had an old one."""
    found = {name: value for name, value in given.items() if name not in DEPRECATED}
    sentences = []
    for old, new in DEPRECATED.items():
        if given.get(old) is None:
            continue
        if found.get(new) is not None:
            raise InvalidDag(f"{where}: {old} is the old name of {new}: give one of them")
        value = given[old]
        if old == "is_delete_operator_pod":
            value = "delete_pod" if _flag(f"{where}: {old}", value) else "keep_pod"
        now = f"{new}={value!r}" if old == "is_delete_operator_pod" else new
        sentences.append(f"{where}: {old} is deprecated; use {now}")
        found[new] = value
    return found, sentences


def without_effect(where: str, given: Mapping[str, Any]) -> list[str]:
    """A sentence for each parameter that is accepted and changes nothing. Raises InvalidDag for a wrong type."""
    sentences = []
    for name, value in given.items():
        if value is not None and name in WITHOUT_EFFECT:
            reader, quiet, why = WITHOUT_EFFECT[name]
            reader(f"{where}: {name}", value)
            if why is not None and value != quiet:
                sentences.append(f"{where}: {name} has no effect: {why}")
    return sentences


def refuse_functions(where: str, given: Mapping[str, Any]) -> None:
    """Raises InvalidDag for parameters that are code: no process that waits for a pod could run it."""
    for name, remedy in FUNCTIONS.items():
        if given.get(name) is not None:
            raise InvalidDag(f"{where}: {name} is not possible: no code of a DAG runs beside a pod; {remedy}")


def problem(pod: Mapping[str, Any]) -> str | None:
    """What the dispatcher would refuse of these arguments, beginning with the parameter; None if nothing. Asked of its
    own reader, so that a mistake is reported when the DAG is loaded and not when the pod is made."""
    from dispatcher import errors
    from dispatcher.manifests import container_pod

    stand_ins: dict[str, str] = {}
    known = {name: value for name, value in pod.items() if not isinstance(value, dict) or value.keys() != {WHOLE}}
    if "pod_template_dict" in pod.keys() - known.keys():
        return None  # what it will bring along is not known
    try:
        container_pod.read(_without_marks(known, stand_ins))
    except errors.DispatcherError as error:
        return str(error).removeprefix("dispatcher.pod: ")
    return None


def _without_marks(value: Any, stand_ins: dict[str, str]) -> Any:
    """The value with a text of its own for each template and result, whose real ones are not known yet."""
    if isinstance(value, dict):
        if value.keys() in ({XCOM}, {TEMPLATE}):
            # The same template twice is the same text: names that refer to each other have to match.
            return stand_ins.setdefault(repr(value), f"unknown-{len(stand_ins)}")
        return {key: _without_marks(part, stand_ins) for key, part in value.items()}
    return [_without_marks(part, stand_ins) for part in value] if isinstance(value, list) else value
