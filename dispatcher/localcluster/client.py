"""A small client of a local cluster: one request at a time, plain JSON, standard library. For tests and scripts."""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

Json = dict[str, Any]


class ClientError(Exception):
    """The cluster refused; `code` is the HTTP status, the message is the cluster's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Client:
    """Where the cluster is, and the right to speak to it."""

    url: str
    token: str
    certificate: str
    """In PEM; the cluster made it itself."""

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Client":
        """By the file that the cluster wrote, which is JSON."""
        said = json.loads(path.read_text(encoding="utf-8"))
        cluster = said["clusters"][0]["cluster"]
        certificate = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return cls(url=cluster["server"], token=said["users"][0]["user"]["token"], certificate=certificate)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        timeout_s: float = 30.0,
        **query: Any,
    ) -> Any:
        """The decoded answer (text where it is no JSON); raises ClientError for a refusal, OSError for none at all."""
        headers: Mapping[str, str] = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        connection = http.client.HTTPSConnection(
            urlsplit(self.url).netloc, timeout=timeout_s, context=ssl.create_default_context(cadata=self.certificate)
        )
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, body=data, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"no answer to {method} {path}: {error!r}") from error
        finally:
            connection.close()
        decoded = json.loads(text) if "json" in (answer.headers.get("Content-Type") or "") else text
        if answer.status >= 400:
            raise ClientError(answer.status, decoded["message"] if isinstance(decoded, dict) else text)
        return decoded
