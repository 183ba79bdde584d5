"""The door to the API server: whom it trusts."""

import asyncio
from pathlib import Path

import pytest
import yaml

from dispatcher import errors
from dispatcher.kubeapi import client, server_access
from tests import parts


@pytest.fixture
def untrusted(local_cluster: parts.LocalCluster, tmp_path: Path) -> Path:
    """A kubeconfig of the local cluster that does not vouch for its certificate."""
    config = yaml.safe_load(local_cluster.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def version_of(access: server_access.Access) -> str:
    async def ask() -> str:
        async with client.KubeClient(access) as api:
            return (await api.read_version())["gitVersion"]

    return asyncio.run(ask())


def test_a_certificate_that_nobody_vouches_for_is_refused(untrusted: Path) -> None:
    """The error says that it is the certificate."""
    with pytest.raises(errors.ApiUnavailable, match=r"(?i)certificate"):
        version_of(server_access.connect(kubeconfig=untrusted))


def test_it_is_taken_where_the_settings_say_so(untrusted: Path) -> None:
    """kubernetes.verify_ssl = false."""
    assert version_of(server_access.connect(kubeconfig=untrusted, verify_ssl=False)).startswith("v1.")
