"""The API server takes what we make: every golden manifest of `tests/unit/manifests/golden`, by a dry run."""

from pathlib import Path

import pytest
import yaml

from tests.contract.conftest import Api

GOLDEN = sorted((Path(__file__).parents[1] / "unit" / "manifests" / "golden").glob("*.yaml"))


def test_there_are_manifests_to_ask_about() -> None:
    """A folder that moved would leave the test below without a case, and nobody would notice."""
    assert GOLDEN


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_api_server_would_take_each_manifest(api: Api, file: Path) -> None:
    """Each shipped template under each kind of override, and pods of any image. Nothing is created."""
    manifest = yaml.safe_load(file.read_text())
    manifest["metadata"]["namespace"] = api.namespace

    answer = api.call("POST", api.pods, manifest, dryRun="All")

    assert answer.code == 201, answer.body
    assert api.call("GET", f"{api.pods}/{manifest['metadata']['name']}").code == 404
