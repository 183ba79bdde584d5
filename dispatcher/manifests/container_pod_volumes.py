"""What a container pod is given from outside: variables, ConfigMaps, Secrets, volumes. Pure.

Read from the arguments of `dispatcher.pod`; several of them may speak of one volume or variable, and must agree.
"""

from collections.abc import Mapping
from typing import Any

from dispatcher import errors
from dispatcher.manifests import container_pod_options, container_pod_values, kubernetes_types


def read(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fields of the task container (`env`, `envFrom`, `volumeMounts`), and the pod's volumes.

    Raises InvalidPod that names the argument.
    """
    attached = _attached(given.get("secrets", ()))
    container = {
        "env": _distinct(
            *_env(given.get("env_vars", ())),
            *container_pod_values.entries(given, "pod_runtime_info_envs", "EnvVar"),
            *attached["env"],
            key="name",
        ),
        "envFrom": [
            *(entry for _, entry in container_pod_values.entries(given, "env_from", "EnvFromSource")),
            *_configmaps(given.get("configmaps", ())),
            *(entry for _, entry in attached["envFrom"]),
        ],
        "volumeMounts": _distinct(
            *container_pod_values.entries(given, "volume_mounts", "VolumeMount"),
            *attached["volumeMounts"],
            key="mountPath",
        ),
    }
    return container, _distinct(*_volumes(given.get("volumes", ())), *attached["volumes"], key="name")


def _distinct(*entries: tuple[str, dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The entries, of which no two may have the same key; the very same one twice counts once."""
    seen: dict[object, tuple[str, dict[str, Any]]] = {}
    for path, entry in entries:
        name = entry.get(key)
        if not isinstance(name, str) or not name:
            raise container_pod_options.wrong(f"{path}.{key}", "is missing")
        first, same = seen.setdefault(name, (path, entry))
        if same != entry:
            raise container_pod_options.wrong(path, f"{key} {name!r} is taken by {first}; give it another one")
    return [entry for _, entry in seen.values()]


def _env(env_vars: object) -> list[tuple[str, dict[str, Any]]]:
    """A mapping of names to texts, or the API's list."""
    if isinstance(env_vars, Mapping):
        texts = container_pod_values.checked(env_vars, "{str}", ("env_vars",))
        return [(f"env_vars[{name!r}]", {"name": name, "value": value}) for name, value in texts.items()]
    return container_pod_values.entries({"env_vars": env_vars}, "env_vars", "EnvVar")


def _configmaps(configmaps: object) -> list[dict[str, Any]]:
    names = container_pod_values.sequence("configmaps", configmaps)
    return [
        {"configMapRef": {"name": container_pod_options.read_text(f"configmaps[{index}]", name)}}
        for index, name in enumerate(names)
    ]


def pull_secrets(secrets: object) -> list[dict[str, Any]]:
    """References, names, or names in one text separated by commas."""
    names = [name.strip() for name in secrets.split(",")] if isinstance(secrets, str) else secrets
    entries = [
        {"name": name} if isinstance(name, str) else name
        for name in container_pod_values.sequence("image_pull_secrets", names)
    ]
    return [
        entry
        for _, entry in container_pod_values.entries(
            {"image_pull_secrets": entries}, "image_pull_secrets", "LocalObjectReference"
        )
    ]


def _volumes(volumes: object) -> list[tuple[str, dict[str, Any]]]:
    """The API's volumes; `{"name", "configs"}` is a `dispatcher.Volume`."""
    flat = [
        {**entry["configs"], "name": entry.get("name")}
        if isinstance(entry, Mapping) and isinstance(entry.get("configs"), Mapping)
        else entry
        for entry in container_pod_values.sequence("volumes", volumes)
    ]
    return container_pod_values.entries({"volumes": flat}, "volumes", "Volume")


def _attached(secrets: object) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """What the secrets add: env, envFrom, volumeMounts and volumes, each entry with the path of its secret."""
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {"env": [], "envFrom": [], "volumeMounts": [], "volumes": []}
    for index, entry in enumerate(container_pod_values.sequence("secrets", secrets)):
        path = f"secrets[{index}]"
        spec = _secret(path, entry)["spec"]
        for name, value in {**spec["containers"][0], "volumes": spec.get("volumes", [])}.items():
            if name in found:
                found[name] += [(path, part) for part in value]
    return found


def _secret(path: str, entry: object) -> dict[str, Any]:
    """The override that attaches one secret."""
    if not isinstance(entry, Mapping):
        raise container_pod_options.wrong(path, f"must be a mapping, not {container_pod_options.described(entry)}")
    unknown = entry.keys() - _SECRET_KEYS.keys()
    if unknown:
        raise container_pod_options.wrong(
            f"{path}.{min(map(str, unknown))}", f"unknown field; a secret has {', '.join(sorted(_SECRET_KEYS))}"
        )
    fields = {_SECRET_KEYS[name]: value for name, value in entry.items()}
    try:
        # Missing fields are filled with what `Secret` itself refuses, in its own words.
        secret = kubernetes_types.Secret(**{"deploy_type": None, "deploy_target": None, "secret": "", **fields})
        return secret.to_override()
    except errors.InvalidPod as error:
        raise container_pod_options.wrong(path, str(error)) from None


_SECRET_KEYS = {
    "type": "deploy_type",
    "deploy_type": "deploy_type",
    "target": "deploy_target",
    "deploy_target": "deploy_target",
    "secret": "secret",
    "key": "key",
    "items": "items",
}
