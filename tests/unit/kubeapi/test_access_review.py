"""What the dispatcher may do stands once in the code; the role that ships and the docs say the same."""

import re
from pathlib import Path

import pytest
import yaml

from dispatcher.kubeapi import access_review

ROOT = Path(__file__).parents[3]
NEEDED = {(verb, "/".join(filter(None, (what, part)))) for verb, what, part in access_review.NEEDED}
_ROW = re.compile(
    r"^\| (?P<what>pods|pods/log|events|configmaps|secrets) \| (?P<verbs>[a-z, ]+?) *(?:\(.*\) )?\|", re.MULTILINE
)


@pytest.mark.parametrize("page", ["celery.md", "operations.md"])
def test_the_docs_name_exactly_what_is_needed(page: str) -> None:
    """Who makes a role by hand finds all of it, at either door."""
    rows = _ROW.finditer((ROOT / "docs" / page).read_text())
    told = {(verb.strip(), row["what"]) for row in rows for verb in row["verbs"].split(",")}
    assert told == NEEDED


def test_the_role_that_ships_grants_exactly_what_is_needed() -> None:
    """No verb more, so that a stolen token of the dispatcher is worth little; none less."""
    documents = yaml.safe_load_all((ROOT / "compose" / "kubernetes" / "dispatcher-role.yaml").read_text())
    role = next(one for one in documents if one["kind"] == "Role")
    assert {(verb, what) for rule in role["rules"] for what in rule["resources"] for verb in rule["verbs"]} == NEEDED
