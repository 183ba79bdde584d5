"""The API server takes what we make: every golden manifest of `tests/unit/golden`, by a dry run."""

from pathlib import Path

import pytest
import yaml

from tests.contract.conftest import Api

GOLDEN = sorted((Path(__file__).parents[1] / "unit" / "golden").glob("*.yaml"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_api_server_would_take_each_manifest(api: Api, file: Path) -> None:
    """Each shipped template under each kind of override, and pods of any image. Nothing is created."""
    manifest = yaml.safe_load(file.read_text())
    manifest["metadata"]["namespace"] = api.namespace

    answer = api.call("POST", api.pods, manifest, dryRun="All")

    assert answer.code == 201, answer.body
    assert api.call("GET", f"{api.pods}/{manifest['metadata']['name']}").code == 404
