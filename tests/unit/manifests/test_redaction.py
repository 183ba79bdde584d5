"""What people see of values that may hold a credential."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.manifests import redaction
from dispatcher.manifests.labels import MESSAGE_ANNOTATION

HIDDEN = redaction.HIDDEN
POD = {
    "metadata": {"annotations": {MESSAGE_ANNOTATION: '{"args": ["hunter2"]}', "note": "n"}},
    "spec": {
        "initContainers": [{"name": "i", "env": [{"name": "GIT_TOKEN", "value": "hunter2"}]}],
        "containers": [
            {
                "name": "base",
                "env": [
                    {"name": "LEVEL", "value": "3"},
                    {"name": "SOURCE", "value": "postgresql://user:hunter2@db/x"},
                    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
            }
        ],
    },
}

SHAPES = (
    "postgresql://etl:{}@db/x",
    "postgresql+psycopg://etl:{}@db:5432/x?sslmode=require",
    "redis://:{}@redis:6379/0",
    "sentinel://:{}@a:1;sentinel://:{}@b:1",
    "https://{}@github.com/a/b.git",
    "https://{}:@api.example.com/v1",
    "https://{}:x-oauth-basic@github.com/a",
    "redis://host/0?password={}",
    "redis+socket:///run/redis.sock?virtual_host=1&password={}",
    "postgresql://db/x?user=u&sslpassword={}&x=1",
    "https://store.example.com/c?sv=1&sig={}",
    "https://host/x#access_token={}&y=1",
    "jdbc:postgresql://db/x?user=u&password={}",
    "jdbc:sqlserver://db:1433;user=u;password={};encrypt=true",
    "host=db user=etl password={} dbname=x",
    "host=db password = '{}'",
    "Server=db;Uid=etl;Pwd={};",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};EndpointSuffix=core.windows.net",
    "etl:{}@tcp(db:3306)/x",
    "etl:{}@db/x",
    "Authorization: Bearer {}",
    "Bearer {}",
    "Basic {}",
    "X-Api-Key: {}",
    '{{"user": "u", "password": "{}"}}',
    "{{'token': '{}'}}",
    "--user u --password {} --verbose",
    "-Dspring.datasource.password={}",
    "machine db login u password {}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
)
secrets = st.text(st.characters(min_codepoint=48, max_codepoint=122, categories=("Lu", "Ll", "Nd")), min_size=8)


def test_secrets_and_the_message_are_hidden_and_the_rest_is_shown() -> None:
    before = copy.deepcopy(POD)
    shown = redaction.redacted(POD)
    assert "hunter2" not in str(shown)
    env = shown["spec"]["containers"][0]["env"]
    assert env[0] == {"name": "LEVEL", "value": "3"}
    assert env[2] == POD["spec"]["containers"][0]["env"][2], "a reference is no secret"  # type: ignore[index]
    assert shown["metadata"]["annotations"]["note"] == "n"
    assert before == POD


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("DB_PASSWORD", "x", True),
        ("AIRFLOW_CONN_DB", "x", True),
        ("URL", "https://user:pw@host", True),
        ("URL", "https://host:8080/x", False),
        ("PODYARD_APP", "app:app", False),
        ("CONNECT_TIMEOUT", "5", False),
    ],
)
def test_a_secret_is_known_by_its_name_or_by_its_value(name: str, value: str, is_secret: bool) -> None:
    assert redaction.looks_secret(name, value) is is_secret


@given(st.sampled_from(SHAPES), secrets)
def test_a_secret_of_any_shape_is_gone(shape: str, secret: str) -> None:
    """Wherever credentials stand in values that people write."""
    assert secret not in redaction.hide_text(shape.replace("{}", secret).replace("{{", "{").replace("}}", "}"))


@given(st.sampled_from(SHAPES), secrets, st.sampled_from(["{}", "x {} y", "{}\n", " {}"]))
def test_it_is_gone_in_tables_lists_and_in_the_midst_of_others(shape: str, secret: str, around: str) -> None:
    """Entry by entry, however deep."""
    text = around.replace("{}", shape.replace("{}", secret).replace("{{", "{").replace("}}", "}"))
    assert secret not in str(redaction.hide({"A": [{"B": text}, (text,)], "LANG": "C"}))


@given(st.text(st.characters(codec="ascii", exclude_characters="@•"), min_size=8))
def test_whatever_the_password_of_a_url_it_is_gone(password: str) -> None:
    """Also with characters that belong escaped into a URL."""
    shown = redaction.hide_text(f"redis://user:{password}@host/0")
    assert shown in ("redis://user:•••@host/0", HIDDEN)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:hunter2@host/0", "redis://user:•••@host/0"),
        ("redis://:hunter2@host/0", "redis://:•••@host/0"),
        ("https://hunter2@host/x", "https://•••@host/x"),
        ("postgresql://db/x?password=hunter2&sslmode=require", "postgresql://db/x?password=•••&sslmode=require"),
        ("password=hunter2", HIDDEN),
    ],
)
def test_of_a_url_the_rest_is_shown(text: str, shown: str) -> None:
    """The host is what people look for."""
    assert redaction.hide_text(text) == shown


@pytest.mark.parametrize(
    "value",
    [
        "C.UTF-8",
        "",
        "redis://127.0.0.1:6379/0",
        "sqlite:////srv/podyard.db",
        "https://pypi.org/simple/?page=2",
        "registry.example.com:5000/team/etl@sha256:0123456789abcdef",
        "localhost:6379",
        "me@example.com",
        "shop:app",
        "12:30:05",
        "-Xmx4g -XX:+UseG1GC",
        "/usr/local/bin:/usr/bin",
        "author: Ada",
        True,
        0,
        None,
        7.5,
    ],
)
def test_what_is_no_secret_is_shown(value: Any) -> None:
    """A setting that is hidden without need helps nobody."""
    assert redaction.hide(value) == value


def test_the_name_hides_what_the_value_does_not_tell() -> None:
    """Numbers too; but nothing is hidden where nothing is set."""
    table = {"API_TOKEN": "hunter2", "PIN_PASSWORD": 1234, "PASSWORD": "", "USE_TOKEN": True, "LANG": "C"}
    assert redaction.hide(table) == {**table, "API_TOKEN": HIDDEN, "PIN_PASSWORD": HIDDEN}
    assert redaction.hide({"DB_CONN": "postgresql://u:hunter2@db/x"}) == {"DB_CONN": "postgresql://u:•••@db/x"}
