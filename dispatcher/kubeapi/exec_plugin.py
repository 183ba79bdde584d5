"""The program of a kubeconfig that gives credentials: run when they are needed and when they expire, within a bound.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
Never asks a person: its standard input is empty. Called by `server_access`, on any thread but the loop's.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from dispatcher import errors
from dispatcher.kubeapi import kubeconfig

TIMEOUT_S = 25.0
"""Less than a call's own time-out."""
RENEW_BEFORE = timedelta(seconds=30)
"""Credentials are renewed so long before they expire: a call with them takes its time, and clocks differ."""
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _Answer(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    status: _Status


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What the program gave: a token, or a certificate with its key (PEM), or both."""

    token: str | None
    certificate: str | None
    key: str | None
    expires_at: datetime | None

    def is_expired(self, now: datetime) -> bool:
        """Whether they must be renewed."""
        return self.expires_at is not None and now >= self.expires_at - RENEW_BEFORE


def run(program: kubeconfig.Exec, *, folder: Path, cluster: Mapping[str, Any]) -> Credentials:
    """Runs it. Raises DispatcherError with its words, what to install, or what is wrong with its answer."""
    if program.api_version not in VERSIONS:
        raise errors.DispatcherError(f"exec.apiVersion {program.api_version!r} is not one of {', '.join(VERSIONS)}")
    command = program.command
    if os.sep in command:
        command = str(folder / command)  # as kubectl: relative to the kubeconfig
    given = {variable.name: variable.value for variable in program.env or ()}
    info = {"KUBERNETES_EXEC_INFO": json.dumps(_info(program, cluster))}
    try:
        done = subprocess.run(
            [command, *(program.args or ())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            # As client-go: the kubeconfig's variables before ours, and the cluster's information before both.
            env={**os.environ, **given, **info},
        )
    except subprocess.TimeoutExpired:
        raise errors.DispatcherError(f"the program {command} gave no credentials within {TIMEOUT_S:g} s") from None
    except (OSError, ValueError) as error:
        # Mostly the program is not installed: `installHint` is what its vendor wrote for this case.
        hint = f". {program.install_hint.strip()}" if program.install_hint else ""
        raise errors.DispatcherError(f"the program {command} for credentials cannot be run: {error}{hint}") from error
    if done.returncode:
        # Programs print usage or a traceback; the last line says what it was.
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:500]
        raise errors.DispatcherError(f"the program {command} for credentials ended with {done.returncode}: {last}")
    return _credentials(done.stdout, program, command)


def _info(program: kubeconfig.Exec, cluster: Mapping[str, Any]) -> dict[str, Any]:
    """https://kubernetes.io/docs/reference/config-api/client-authentication.v1/#ExecCredential"""
    spec: dict[str, Any] = {"interactive": False}
    if program.provide_cluster_info:
        # ExecCredential names the fields of a cluster as kubeconfig does, but knows neither of these two.
        passed = {key: value for key, value in cluster.items() if key not in ("extensions", "certificate-authority")}
        for extension in cluster.get("extensions") or ():
            if extension.get("name") == "client.authentication.k8s.io/exec":
                passed["config"] = extension.get("extension")
        spec["cluster"] = passed
    return {"apiVersion": program.api_version, "kind": "ExecCredential", "spec": spec}


def _credentials(output: bytes, program: kubeconfig.Exec, command: str) -> Credentials:
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.DispatcherError(f"the program {command} gave no ExecCredential with a status") from None
    # client-go refuses another version, too: it may mean other fields.
    if (answer.kind, answer.api_version) != ("ExecCredential", program.api_version):
        raise errors.DispatcherError(
            f"the program {command} gave {answer.kind} of {answer.api_version}, asked was for {program.api_version}"
        )
    status = answer.status
    if bool(status.client_certificate_data) != bool(status.client_key_data):
        raise errors.DispatcherError(f"the program {command} gave a certificate without a key, or a key alone")
    if not (status.token or status.client_certificate_data):
        raise errors.DispatcherError(f"the program {command} gave neither a token nor a certificate")
    expires_at = status.expiration_timestamp
    # RFC 3339 demands a zone; a program that forgets it means UTC, and comparing would raise.
    if expires_at is not None and expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)
    return Credentials(
        token=status.token,
        certificate=status.client_certificate_data,
        key=status.client_key_data,
        expires_at=expires_at,
    )
