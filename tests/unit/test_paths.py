"""Every address under which clients look for the same resources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.context import canonical

_RESOURCES = [
    "images/generations",
    "images/edits",
    "images/variations",
    "images/generations/job_1",
    "models",
    "models/gpt-image-1",
    "models/imagelabs/sdxl-turbo",
    "chat/completions",
]
_PREFIXES = [
    *("/v1/", "/", "//v1/", "/v1//", "//", "/v1/v1/", "/v1/v1/v1/", "/v1//v1/"),
    *("/api/v1/", "/openai/v1/", "/api/openai/v1/", "/v1/openai/v1/", "/v1"),
]


@pytest.mark.parametrize("resource", _RESOURCES)
@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("end", ["", "/", "//"])
def test_every_form_leads_to_the_same_resource(prefix: str, resource: str, end: str) -> None:
    assert canonical(f"{prefix}{resource}{end}") == (f"/v1/{resource}", "")


@pytest.mark.parametrize("resource", ["txt2img", "sd-models", "options"])
@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("end", ["", "/"])
def test_a1111s_addresses_work_below_the_same_bases(prefix: str, resource: str, end: str) -> None:
    assert canonical(f"{prefix}sdapi/v1/{resource}{end}") == (f"/sdapi/v1/{resource}", "")


@pytest.mark.parametrize("resource", ["images/generations", "images/edits", "chat/completions"])
@pytest.mark.parametrize("prefix", ["", "/openai", "/v1", "/v1/openai"])
@pytest.mark.parametrize("model", ["dall-e-3", "gpt-image-1.5", "imagelabs/sdxl-turbo", "my images"])
@pytest.mark.parametrize("end", ["", "/"])
def test_azures_form_names_the_model(prefix: str, model: str, resource: str, end: str) -> None:
    assert canonical(f"{prefix}/deployments/{model}/{resource}{end}") == (f"/v1/{resource}", model)


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("/", "/"),
        ("//", "/"),
        ("", ""),
        ("/healthz", "/healthz"),
        ("/healthz/", "/healthz"),
        ("/metrics", "/metrics"),
        ("/openapi.json", "/openapi.json"),
        ("/images/0123.png", "/images/0123.png"),
        ("/sdapi/v1/txt2img", "/sdapi/v1/txt2img"),
        ("/sdapi/v1/options/", "/sdapi/v1/options"),
        ("/page/app.js", "/page/app.js"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/responses", "/v1/responses"),
        ("/v10/images/generations", "/v10/images/generations"),
        ("/other/v1/images/generations", "/other/v1/images/generations"),
        ("/images/edits/more", "/images/edits/more"),
        ("/v1/models/v1/x", "/v1/models/v1/x"),
        ("/deployments/dall-e-3", "/deployments/dall-e-3"),
    ],
)
def test_other_addresses_stay_what_they_are(path: str, same: str) -> None:
    assert canonical(path) == (same, "")


@given(st.lists(st.sampled_from(["/", "v1", "images", "generations", "models", "deployments", "x", "openai"])))
def test_the_canonical_form_is_its_own(parts: list[str]) -> None:
    path, _ = canonical("/" + "".join(parts))
    assert "//" not in path
    if "v1/v1" not in path and "v1images" not in path and "v1models" not in path and "deployments" not in path:
        assert canonical(path)[0] == path


@pytest.mark.parametrize("path", ["/api" * 7500, "/deployments" + "/chat/" * 5000 + "\n", "/v1/images/generations\n"])
def test_what_cannot_be_ours_is_left_alone(path: str) -> None:
    assert canonical(path) == (path, "")
