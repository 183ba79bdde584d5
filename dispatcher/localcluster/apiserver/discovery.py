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
    """`/apis`: what is only checked, and who may do what."""
    versions = sorted({_AUTHORIZATION, *(version for version in resources.BY_VERSION if "/" in version)})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(version) for version in versions]}


def _group(group_version: str) -> Json:
    name, _, number = group_version.partition("/")
    version = {"groupVersion": group_version, "version": number}
    return {"name": name, "versions": [version], "preferredVersion": version}


def authorization_resources() -> Json:
    """`/apis/authorization.k8s.io/v1`."""
    review = {"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": False}
    listed = [review | {"kind": "SelfSubjectAccessReview", "verbs": ["create"]}]
    return {"kind": "APIResourceList", "groupVersion": _AUTHORIZATION, "resources": listed}


def root(version: str) -> str:
    """Where a version of a group is: `/api/v1`, `/apis/apps/v1`."""
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def listed(version: str) -> Json:
    """What a version of a group has: `/api/v1`, `/apis/apps/v1`."""
    listed: list[Json] = []
    for resource in resources.BY_VERSION[version].values():
        listed.append(_entry(resource))
        listed += [
            {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
            | {"kind": kind, "verbs": list(verbs)}
            for name, kind, verbs in resource.subresources
        ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


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
    roots = [root(version) for version in resources.BY_VERSION]
    return {"paths": {path.strip("/"): {"serverRelativeURL": f"/openapi/v3{path}"} for path in roots}}


def openapi_of(version: str) -> Json:
    """`/openapi/v3/api/v1` and its like: the server checks fields itself, so that kubectl asks for no schemas."""
    paths: Json = {}
    for resource in resources.BY_VERSION[version].values():
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        # kubectl validates by itself unless the patch of a resource
        # knows `fieldValidation`; then it leaves that to the server.
        asked = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
        paths[f"{root(version)}{scope}/{resource.plural}/{{name}}"] = {
            "patch": {
                "parameters": asked,
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": {
                    "group": resource.group,
                    "kind": resource.kind,
                    "version": resource.version,
                },
            }
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Podyard local cluster", "version": release.GIT_VERSION},
        "paths": paths,
    }
