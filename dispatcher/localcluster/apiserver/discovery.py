"""What the API says about itself: groups, resources, version, and just enough OpenAPI for kubectl. Pure."""

import platform
from typing import Any

from dispatcher.localcluster.objects import release, resources

Json = dict[str, Any]
_AUTHORIZATION = "authorization.k8s.io/v1"


def version() -> Json:
    """`/version`."""
    return {
        "major": release.MAJOR,
        "minor": release.MINOR,
        "gitVersion": release.GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "python",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def core_versions(address: str) -> Json:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups() -> Json:
    """`/apis`: beside the core there is only who may do what."""
    version = {"groupVersion": _AUTHORIZATION, "version": "v1"}
    group = {"name": _AUTHORIZATION.partition("/")[0], "versions": [version], "preferredVersion": version}
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}


def authorization_resources() -> Json:
    """`/apis/authorization.k8s.io/v1`."""
    review = {"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": False}
    listed = [review | {"kind": "SelfSubjectAccessReview", "verbs": ["create"]}]
    return {"kind": "APIResourceList", "groupVersion": _AUTHORIZATION, "resources": listed}


def core_resources() -> Json:
    """`/api/v1`."""
    listed: list[Json] = []
    for resource in resources.ALL:
        listed.append(_entry(resource))
        listed += [
            {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
            | {"kind": kind, "verbs": list(verbs)}
            for name, kind, verbs in resource.subresources
        ]
    return {"kind": "APIResourceList", "groupVersion": "v1", "resources": listed}


def _entry(resource: resources.Resource) -> Json:
    entry: Json = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def openapi() -> Json:
    """`/openapi/v3`."""
    return {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}}}


def openapi_core() -> Json:
    """`/openapi/v3/api/v1`: says that the server itself checks fields, so that kubectl does not ask for the schemas."""
    paths: Json = {}
    for resource in resources.ALL:
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        asked = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
        paths[f"/api/v1{scope}/{resource.plural}/{{name}}"] = {
            "patch": {
                "parameters": asked,
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": {"group": "", "kind": resource.kind, "version": "v1"},
            }
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Podyard local cluster", "version": release.GIT_VERSION},
        "paths": paths,
    }
