"""compose/: held against the schema, and each service's exact command and health check run as plain processes.

No container engine is needed. Where a container would find another by its name, the test puts the address of the real
part from its wheel; programs of the images that no wheel brings (`valkey-cli`) are stand-ins of one line.
"""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from routing.standalone import layout
from routing.standalone import valkey as valkey_part
from tests import parts

COMPOSE = Path(__file__).parents[2] / "compose"
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<word>[^}]*))?\}")
PASSWORDS = {
    "VALKEY_PASSWORD": "v4lkey",
    "POSTGRES_PASSWORD": "p0stgres",
    "FLOWER_BASIC_AUTH": "me:mine",
}


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """The value as Compose sees it: `${NAME:-default}`, `${NAME:?complaint}` and `$$` replaced."""
    if isinstance(value, dict):
        return {key: interpolated(one, environ) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, environ) for one in value]
    return VARIABLE.sub(lambda found: _variable(found, environ), value) if isinstance(value, str) else value


def _variable(found: re.Match[str], environ: Mapping[str, str]) -> str:
    if found[0] == "$$":
        return "$"
    text = environ.get(found["name"], "")
    if text or found["kind"] is None:
        return text
    if found["kind"] == ":?":
        raise KeyError(found["name"])
    return str(found["word"])


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return loaded


@pytest.fixture
def services(written: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The services with a filled-in .env."""
    found: dict[str, Any] = interpolated(written, {**PASSWORDS, "KUBECONFIG_FILE": str(tmp_path / "kubeconfig")})[
        "services"
    ]
    return found


def test_the_file_follows_the_schema(written: dict[str, Any]) -> None:
    """Every key is one that Compose knows, of the right shape."""
    schema = json.loads(Path(__file__).with_name("compose_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(interpolated(written, {**PASSWORDS, "KUBECONFIG_FILE": "/kubeconfig"}), schema)


def test_every_variable_is_explained_in_the_example(written: dict[str, Any]) -> None:
    """Whoever copies `.env.example` sees all there is to fill in, and nothing that has no effect."""
    used = {found["name"] for found in VARIABLE.finditer(json.dumps(written)) if found["name"]}
    explained = set(re.findall(r"^(\w+)=", (COMPOSE / ".env.example").read_text(), re.MULTILINE))
    assert used == explained


@pytest.mark.parametrize("missing", [*PASSWORDS, "KUBECONFIG_FILE"])
def test_a_password_that_is_not_set_is_refused(written: dict[str, Any], missing: str) -> None:
    """No engine starts with an empty or a well-known password."""
    filled = {**PASSWORDS, "KUBECONFIG_FILE": "/kubeconfig"}
    del filled[missing]
    with pytest.raises(KeyError, match=missing):
        interpolated(written, filled)


def test_services_wait_for_what_they_need(written: dict[str, Any], services: dict[str, Any]) -> None:
    """Each dependency exists; only a service with a health check can be "healthy", the others must end."""
    for service in services.values():
        for name, wanted in service.get("depends_on", {}).items():
            has_check = "healthcheck" in services[name]
            assert wanted["condition"] == ("service_healthy" if has_check else "service_completed_successfully")
    named = {mount.partition(":")[0] for service in services.values() for mount in service.get("volumes", ())}
    assert {name for name in named if not name.startswith("/")} == set(written["volumes"])


def test_only_loopback_is_published(services: dict[str, Any]) -> None:
    """Who can reach the broker can run programs; Flower is for this machine alone."""
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:5555:5555"]


def test_our_processes_run_without_privileges(services: dict[str, Any]) -> None:
    """Not as root, with a read-only file system and no capability."""
    ours = [service for service in services.values() if (service.get("command") or [""])[0] == "podyard"]
    assert len(ours) == 5
    for service in ours:
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])


def test_the_image_holds_what_the_wheel_needs() -> None:
    """Everything that the Dockerfile copies is let through by its ignore file, and exists."""
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]}
    allowed = {line[1:] for line in (COMPOSE / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert copied - {"${DAGS}"} <= allowed
    assert all((COMPOSE.parent / name).exists() for name in copied - {"${DAGS}"})


class Machine:
    """Runs services of the compose file as processes of this machine."""

    def __init__(self, folder: Path, services: Mapping[str, Any], addresses: Mapping[str, str]) -> None:
        self.folder = folder
        self.services = services
        self.addresses = addresses
        """What stands in the file -> what it is on this machine."""
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """The service's environment, and nothing of ours but what an image has: PATH, HOME."""
        given = {key: self.here(str(value)) for key, value in self.services[name].get("environment", {}).items()}
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), "/usr/bin", "/bin"])
        image = {"PODYARD_DAGS__FOLDER": str(self.folder / "dags"), "PODYARD_HOME": str(self.folder / "home")}
        return {"PATH": path, "HOME": str(self.folder), "LANG": "C.UTF-8", **image, **given}

    def here(self, text: str) -> str:
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return text

    def start(self, name: str) -> None:
        """Start the service's exact command."""
        command = [self.here(word) for word in self.services[name]["command"]]
        self.running[name] = parts.start(
            ["env", "-i", *(f"{key}={value}" for key, value in self.environment(name).items()), *command],
            log=self.folder / f"{name}.log",
            cwd=self.folder,
        )

    def is_healthy(self, name: str) -> bool:
        """Run the service's exact health check once."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        answer = subprocess.run(
            [self.here(word) for word in command],
            env=self.environment(name),
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=30,
        )
        return answer.returncode == 0

    def becomes_healthy(self, name: str) -> None:
        log = self.folder / f"{name}.log"
        parts.eventually(lambda: parts.is_alive(self.running[name], log) and self.is_healthy(name), 30, what=name)

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            parts.stop(process)


@pytest.fixture
def machine(
    services: dict[str, Any],
    tmp_path: Path,
    postgres: str,
    postgres_server: parts.Postgres,
    local_cluster: parts.LocalCluster,
) -> Iterator[Machine]:
    """The engines run; the rest is the test's."""
    port, flower_port = layout.free_port(), layout.free_port()
    addresses = {
        "valkey:6379": f"127.0.0.1:{port}",
        "postgresql+psycopg://podyard:p0stgres@postgres:5432/podyard": postgres,
        "/run/podyard/kubeconfig": str(local_cluster.kubeconfig),
        "/var/lib/podyard/logs": str(tmp_path / "logs"),
        "/tmp/podyard-health": str(tmp_path / "health"),
        "0.0.0.0": "127.0.0.1",
        "5555": str(flower_port),
    }
    machine = Machine(tmp_path, services, addresses)
    (tmp_path / "dags").mkdir()
    (machine.bin / "valkey-server").symlink_to(valkey_part.find_server())
    client = f"import os, redis; redis.Redis(port={port}, password=os.environ['REDISCLI_AUTH']).ping(); print('PONG')"
    _program(machine.bin / "valkey-cli", f"exec {shlex.quote(sys.executable)} -c {shlex.quote(client)}")
    database = postgres.partition("?")[0].rpartition("/")[2]
    where = f"--host={postgres_server.folder / 'run'} --dbname={database}"
    _program(machine.bin / "pg_isready", f'exec {postgres_server.binaries / "pg_isready"} "$@" {where}')
    services["valkey"]["command"] += ["--port", str(port)]  # 6379 may be taken on this machine
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(machine.stop)
        machine.start("valkey")
        machine.becomes_healthy("valkey")
        yield machine


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_each_service_starts_by_its_command_and_is_healthy(machine: Machine) -> None:
    """Given the engines, when the tables are migrated, then our processes start, and their health checks agree."""
    ours = ("scheduler", "worker", "dispatcher", "flower")
    assert machine.is_healthy("postgres")
    assert not any(machine.is_healthy(name) for name in ours[:1])
    machine.start("migrate")
    assert machine.running["migrate"].wait(60) == 0, (machine.folder / "migrate.log").read_text()
    for name in ours:
        machine.start(name)
    for name in ours:
        machine.becomes_healthy(name)


def test_a_service_that_is_gone_is_unhealthy(machine: Machine) -> None:
    """A health check that cannot fail would be worth nothing."""
    machine.start("worker")
    machine.becomes_healthy("worker")
    parts.stop(machine.running["worker"])
    assert not machine.is_healthy("worker")
