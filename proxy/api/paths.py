"""The many addresses under which clients look for the same few resources, brought to one form without a redirect.

Clients differ in whether their base URL ends in ``/v1``, in slashes, and in Azure's way of naming the model in the
path; a 307 would lose the body in some of them (facts: clients §3 point 7).
"""

import re

_SLASHES = re.compile(r"/{2,}")
_DEPLOYMENT = re.compile(r"(?:/v1)?(?:/openai)?/deployments/(?P<model>.+?)(?P<rest>/(?:images|chat)/.+)\Z")
_PREFIX = re.compile(r"\A(?:/(?:api|openai|v1))*/v1(?=/)")
_GLUED = re.compile(r"\A/v1(?=(?:images|models|chat|sdapi)(?:/|\Z))")
_MAX_PATH = 1024
"""A longer path is none of ours; the expressions above are not asked about it."""
_BARE = re.compile(r"/(?:images/(?:generations(?:/[^/]+)?|edits|variations)|models(?:/.+)?|chat/completions)\Z")


def canonical(path: str) -> tuple[str, str]:
    """Return the path in the one form that is routed, and the model that the path names, if any."""
    if len(path) > _MAX_PATH or not path.isprintable():
        return path, ""
    path = _SLASHES.sub("/", path)
    if len(path) > 1:
        path = path.rstrip("/") or "/"
    deployment = _DEPLOYMENT.match(path)
    if deployment:
        return f"/v1{deployment['rest']}", deployment["model"]
    path = _GLUED.sub("/v1/", path, count=1)
    path = _PREFIX.sub("/v1", path, count=1)
    if path.startswith("/v1/sdapi/"):  # its own base has no version, but the one of the models and of Connect has
        return path.removeprefix("/v1"), ""
    if _BARE.match(path):
        path = f"/v1{path}"
    return path, ""
