"""The configuration: defaults, merging, every problem told, secrets only from the environment."""

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from proxy.accounts.given import key_digest
from proxy.accounts.limits import LimitSettings
from proxy.config import (
    Configuration,
    ConfigurationError,
    ServerSettings,
    Settings,
    Timeouts,
    compose,
    find_file,
    is_loopback,
    load,
)
from proxy.pictures.store import ImageSettings
from proxy.providers.prodia import ProdiaSettings
from proxy.providers.registry import KINDS
from proxy.requests.routing import ChatSettings, ModelSettings

_ROOT = Path(__file__).parents[2]
_EXAMPLE = _ROOT / "config.example.toml"


def _problems(values: dict[str, Any], environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as refusal:
        compose(values, environment or {})
    return refusal.value.problems


def _server(**values: Any) -> ServerSettings:
    return compose({"server": values}, {}).settings.server


_KEYED = {kind for kind, own in KINDS.items() if own.key_env}


def _listed(kinds: Collection[str]) -> str:
    """Return the kinds as a problem lists them."""
    return " and ".join(kind for kind in KINDS if kind in kinds)


def test_everything_works_without_a_file() -> None:
    settings = compose({}, {}).settings
    assert set(settings.providers) == set(KINDS)
    assert settings.providers["prodia"].base_url == "https://inference.prodia.com/v2"
    assert settings.providers["prodia-v1"].base_url == "https://api.prodia.com/v1"
    assert settings.providers["prodia-legacy"].base_url == "https://api.prodia.com"
    assert settings.providers["imagelabs"].base_url == "https://editor.imagelabs.net"


@pytest.mark.parametrize(
    ("environment", "reasons"),
    [
        ({}, ["PRODIA_TOKEN is not set", "PRODIA_API_KEY is not set", "not enabled", ""]),
        ({"PRODIA_TOKEN": "t", "PRODIA_API_KEY": "k"}, ["", "", "not enabled", ""]),
        ({"PRODIA_TOKEN": " \n"}, ["PRODIA_TOKEN is not set", "PRODIA_API_KEY is not set", "not enabled", ""]),
    ],
)
def test_providers_are_used_once_their_key_is_set(environment: dict[str, str], reasons: list[str]) -> None:
    configuration = compose({}, environment)
    kinds = ("prodia", "prodia-v1", "prodia-legacy", "imagelabs")
    assert [configuration.why_not(name) for name in kinds] == reasons


def test_every_kind_is_off_or_used_once_its_key_is_set() -> None:
    with_keys = compose({}, {own.key_env: "k" for own in KINDS.values() if own.key_env})
    for name, own in KINDS.items():
        assert with_keys.why_not(name) == ("" if own.enabled else "not enabled")
        if own.enabled and own.key_env:
            assert compose({}, {}).why_not(name) == f"{own.key_env} is not set"


def _example() -> dict[str, Any]:
    return tomllib.loads(_EXAMPLE.read_text(encoding="utf-8"))


def test_the_example_file_says_the_defaults() -> None:
    assert compose(_example(), {}).settings == compose({}, {}).settings


def test_the_example_file_has_one_table_for_each_thing_and_in_it_every_key() -> None:
    example = _example()
    assert set(example) == set(Settings.model_fields)
    assert set(example["server"]) == set(ServerSettings.model_fields)
    assert set(example["timeouts"]) == set(Timeouts.model_fields)
    assert set(example["images"]) == set(ImageSettings.model_fields)
    assert set(example["limits"]) == set(LimitSettings.model_fields)
    assert set(example["chat"]) == set(ChatSettings.model_fields)
    assert set(example["providers"]) == set(KINDS)
    for kind, table in example["providers"].items():
        assert set(table) == set(KINDS[kind].settings.model_fields), kind
    (model,) = example["models"].values()
    assert set(model) == set(ModelSettings.model_fields)


def test_every_key_of_the_example_has_a_comment_where_it_first_stands() -> None:
    seen: set[str] = set()
    for line in _EXAMPLE.read_text(encoding="utf-8").splitlines():
        key, found, rest = line.partition(" = ")
        if found and not key.startswith("#") and key not in seen:
            seen.add(key)
            assert "#" in rest, line


def test_what_is_listed_is_what_the_file_names() -> None:
    models: dict[str, Any] = {"mine": {}, "dall-e-3": {}, "other-*": {}}
    assert compose({"models": models}, {}).listed is None
    only = {"server": {"list_models": "configured"}}
    assert compose({**only, "models": models}, {}).listed == ("mine", "dall-e-3")
    built_in = compose(only, {}).listed
    assert built_in is not None
    assert {"dall-e-2", "dall-e-3", "gpt-image-1"} < set(built_in)
    assert compose({**only, "models": {"other-*": {}}}, {}).listed == built_in
    assert not any("*" in name for name in built_in)


def test_a_file_adds_key_by_key() -> None:
    values = {
        "server": {"port": 9},
        "providers": {"imagelabs": {"max_jobs": 2}},
        "models": {"dall-e-3": {"response_format": "b64_json"}},
    }
    settings = compose(values, {}).settings
    assert (settings.server.port, settings.server.host) == (9, "127.0.0.1")
    assert settings.providers["imagelabs"].max_jobs == 2
    assert settings.providers["imagelabs"].base_url == "https://editor.imagelabs.net"
    assert set(settings.providers) == set(KINDS)
    assert settings.models["dall-e-3"].response_format == "b64_json"
    assert len(settings.models["dall-e-3"].routes) > 1
    assert "gpt-image-*" in settings.models


def test_lists_and_defaults_are_replaced_and_not_merged() -> None:
    values = {"models": {"dall-e-3": {"routes": ["imagelabs/sdxl-turbo"], "defaults": {"seed": 1}}}}
    model = compose(values, {}).settings.models["dall-e-3"]
    assert model.routes == ("imagelabs/sdxl-turbo",)
    assert model.defaults == {"seed": 1}


def test_tables_in_a_table_are_merged_where_their_keys_are_names_and_nowhere_else(tmp_path: Path) -> None:
    """The name of a model or provider may be that of a key; what a key holds is replaced whole."""
    below = {
        "models": {"defaults": {"response_format": "url", "defaults": {"seed": 1}}},
        "providers": {"defaults": {"kind": "imagelabs", "max_jobs": 2}},
    }
    path = _written(
        tmp_path, "[models.defaults]\ndefaults = { steps = 3 }\n[providers.defaults]\npolls_per_second = 4\n"
    )
    settings = load(path, {}, below=below).settings
    assert settings.models["defaults"].response_format == "url"
    assert settings.models["defaults"].defaults == {"steps": 3}
    assert settings.providers["defaults"].max_jobs == 2
    assert settings.providers["defaults"].polls_per_second == 4


def test_a_model_without_routes_has_the_default_ones() -> None:
    values = {
        "server": {"default_routes": ["imagelabs/sdxl-turbo"]},
        "models": {
            "mine": {},
            "dall-e-2": {"response_format": "url"},
            "dall-e-3": {"routes": ["prodia/a", "prodia/b"]},
        },
    }
    models = compose(values, {}).settings.models
    assert {name for name, model in models.items() if model.routes != ("imagelabs/sdxl-turbo",)} == {"dall-e-3"}
    assert {"mine", "gpt-image-1", "dall-e-*"} <= set(models)
    assert models["dall-e-3"].routes == ("prodia/a", "prodia/b")


def test_a_default_route_that_leads_nowhere_is_told_once() -> None:
    values = {
        "server": {"default_routes": ["nowhere/x", "imagelabs/sdxl-turbo"]},
        "models": {"y": {"routes": ["no/x"]}},
    }
    problems = _problems(values)
    assert [problem.partition(": ")[0] for problem in problems] == ["server.default_routes", "models.y.routes"]


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        ("key_env", _KEYED),
        ("mode", {"prodia"}),
        ("image_base_url", {"prodia-legacy"}),
        *((key, set(KINDS)) for key in ("base_url", "enabled", "max_jobs", "polls_per_second", "prices")),
        *((key, set(KINDS)) for key in ("kind", "image_hosts", "allow_private_hosts", "http_proxy")),
    ],
)
def test_a_key_is_taken_by_its_kinds_and_refused_by_the_others(key: str, kinds: set[str]) -> None:
    values = {name: table[key] for name, table in _example()["providers"].items() if key in table}
    assert set(values) == kinds
    value = next(iter(values.values()))
    for kind in kinds:
        compose({"providers": {"mine": {"kind": kind, key: kind if key == "kind" else value}}}, {})
    for kind in set(KINDS) - kinds:
        (problem,) = _problems({"providers": {"mine": {"kind": kind, key: value}}})
        assert problem.startswith(f"providers.mine.{key}: unknown key; only for kind {_listed(kinds)}; ")


def test_prices_are_read_exactly_and_zero_is_one() -> None:
    prices = tomllib.loads('prices = { "flux-2.klein.4b.txt2img.v1" = 0.0043, sdxl = 0, "flux dev" = 1 }')
    settings = compose({"providers": {"prodia": prices}}, {}).settings
    assert settings.providers["prodia"].prices == {
        "flux-2.klein.4b.txt2img.v1": 4_300_000,
        "sdxl": 0,
        "flux dev": 10**9,
    }
    assert settings.providers["imagelabs"].prices == {}


def test_a_removed_provider_is_not_used() -> None:
    configuration = compose({"providers": {"imagelabs": {"enabled": False}}}, {})
    assert configuration.why_not("imagelabs") == "not enabled"


def test_several_tables_may_share_a_kind() -> None:
    values = {
        "providers": {
            "second": {"kind": "prodia", "key_env": "SECOND_TOKEN"},
            "old": {"kind": "prodia-legacy", "base_url": "http://127.0.0.1:1"},
        }
    }
    configuration = compose(values, {"PRODIA_TOKEN": "one", "SECOND_TOKEN": "two"})
    second = configuration.settings.providers["second"]
    assert isinstance(second, ProdiaSettings)
    assert (second.kind, second.base_url, second.mode) == ("prodia", "https://inference.prodia.com/v2", "auto")
    assert configuration.provider_keys == {**dict.fromkeys(_KEYED, ""), "prodia": "one", "second": "two"}
    assert configuration.why_not("second") == ""
    assert configuration.why_not("old") == ""
    assert configuration.why_not("prodia-legacy") == "not enabled"


def test_every_problem_is_told_at_once() -> None:
    problems = _problems(
        {
            "server": {"prt": 8080, "log": "loud", "port": 70000},
            "timeouts": {"hold": 0, "poll": "soon"},
            "images": {"copies": "never"},
            "providers": {"prodia": {"modes": "sync", "max_jobs": 0}, "acme": {}},
            "models": {
                "x": {"routes": []},
                "y": {"routes": ["nowhere/model", "acme/model"]},
                "b\u00fc": {"routes": [1]},
            },
            "modles": {},
        },
        {"PRODIA_API_KEY": "a\nb"},
    )
    told = sorted(problem.partition(": ")[0] for problem in problems)
    assert told == sorted(
        [
            *("server.prt", "server.log", "server.port", "timeouts.hold", "timeouts.poll", "images.copies"),
            *("providers.prodia.modes", "providers.prodia.max_jobs", "providers.acme.kind", "models.x.routes"),
            *("modles", "models.b\u00fc.routes.0", "models.b\u00fc", "models.y.routes", "PRODIA_API_KEY"),
        ]
    )
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"server": {"hosts": "x"}}, "server.hosts: unknown key; did you mean 'host'?"),
        ({"server": {"max_inflight": 1}}, "server.max_inflight: unknown key; did you mean 'max_in_flight'?"),
        ({"timeout": {}}, "timeout: unknown key; did you mean 'timeouts'?"),
        ({"timeouts": {"lifespan": 1}}, "timeouts.lifespan: unknown key; did you mean 'lifetime'?"),
        (
            {"images": {"zzz": 1}},
            "images.zzz: unknown key; known are store, directory, keep, max_bytes, max_pixels, copies",
        ),
        ({"providers": {"prodia": {"url": "x"}}}, "providers.prodia.url: unknown key; did you mean 'base_url'?"),
        ({"models": {"dall-e-3": {"route": []}}}, "models.dall-e-3.route: unknown key; did you mean 'routes'?"),
        ({"providers": {"prodia": {"mod": 1}}}, "providers.prodia.mod: unknown key; did you mean 'mode'?"),
        (
            {"providers": {"imagelabs": {"image_base_url": ""}}},
            "providers.imagelabs.image_base_url: unknown key; only for kind prodia-legacy; did you mean 'base_url'?",
        ),
        (
            {"providers": {"prodia-legacy": {"key_evn": "X"}}},
            (
                "providers.prodia-legacy.key_evn: unknown key; did you mean 'key_env' "
                f"(only for kind {_listed(_KEYED)})?"
            ),
        ),
        ({"providers": {"x": {"kind": "prodia-2"}}}, "providers.x.kind: unknown kind; did you mean 'prodia'?"),
        (
            {"providers": {"acme": {}}},
            f"providers.acme.kind: unknown kind; known are {', '.join(KINDS)}",
        ),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_known_one(values: dict[str, Any], problem: str) -> None:
    assert _problems(values) == [problem]


_NO_ADDRESSES = [
    *(
        "bucket/prefix",
        "https://bucket.s3.amazonaws.com",
        "s3:/bucket",
        "s3://",
        "s3://b",
        "s3:///prefix",
        "S3://bucket",
    ),
    *(
        "s3://bucket/..",
        "s3://bucket/../other",
        "s3://bucket/a//b",
        "s3://bucket/./a",
        "s3://bucket/a?b",
        "s3://-bucket",
    ),
    *("s3://user:secret@host/a", "s3://bucket/a b", "s3://bucket/a%2fb", "s3://bucket/a\n", " s3://bucket"),
]


@pytest.mark.parametrize("address", ["s3://bucket", "s3://my.bucket-1/", "s3://bucket/a/b_c/d.e/", "s3://bucket/..a"])
def test_a_store_is_a_bucket_with_or_without_folders(address: str) -> None:
    assert compose({"images": {"store": address}}, {}).settings.images.store == address


def test_a_store_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.pictures.store.find_spec", lambda _: None)
    assert _problems({"images": {"store": "s3://bucket"}}) == [
        "images.store: needs obstore, which comes with: pip install 'images-proxy[s3]'"
    ]
    assert compose({}, {}).settings.images.store == ""


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"server": 5}, "server"),
        ({"providers": 5}, "providers"),
        ({"models": []}, "models"),
        ({"providers": {"prodia": "x"}}, "providers.prodia"),
        ({"providers": {"x": {"kind": ["prodia"]}}}, "providers.x.kind"),
        ({"providers": {"prodia": {"base_url": "inference.prodia.com"}}}, "providers.prodia.base_url"),
        ({"server": {"public_url": "pics.example"}}, "server.public_url"),
        ({"server": {"trusted_proxies": ["10.0.0.0/8", "here"]}}, "server.trusted_proxies"),
        ({"images": {"keep": float("inf")}}, "images.keep"),
        ({"images": {"keep": -1}}, "images.keep"),
        ({"chat": {"form": "picture"}}, "chat.form"),
        ({"models": {"x": {"chat_form": "picture"}}}, "models.x.chat_form"),
        ({"server": {"list_models": "some"}}, "server.list_models"),
        *(({"images": {"store": address}}, "images.store") for address in _NO_ADDRESSES),
        ({"timeouts": {"heartbeat": float("inf")}}, "timeouts.heartbeat"),
        ({"timeouts": {"hold": float("nan")}}, "timeouts.hold"),
        ({"models": {"x": {"routes": ["imagelabs/sdxl-turbo"], "defaults": {"n": 2}}}}, "models.x.defaults"),
        ({"models": {"x": {"routes": ["imagelabs/sdxl-turbo"], "defaults": {"steps": 0}}}}, "models.x.defaults"),
        ({"models": {"x": {"routes": ["nowhere/sdxl-turbo"]}}}, "models.x.routes"),
        ({"models": {"x": {"routes": ["sdxl-turbo"]}}}, "models.x.routes"),
        ({"models": {"x": {"routes": []}}}, "models.x.routes"),
        ({"server": {"default_routes": []}}, "server.default_routes"),
        ({"server": {"default_routes": [5]}}, "server.default_routes.0"),
        ({"providers": {"prodia": {"prices": 5}}}, "providers.prodia.prices"),
        *(
            (
                {"providers": {"prodia": {"prices": {"sdxl": 0.002, "flux-dev": price}}}},
                "providers.prodia.prices.flux-dev",
            )
            for price in (-0.01, "0.01", True, float("nan"), 1e-12, 1e9, [0.1])
        ),
    ],
)
def test_wrong_values_are_told_by_their_place(values: dict[str, Any], place: str) -> None:
    problems = _problems(values)
    assert [problem.partition(": ")[0] for problem in problems] == [place]


def test_defaults_of_a_model_are_checked_and_read_like_a_request() -> None:
    values = {"models": {"x*": {"routes": ["imagelabs/sdxl-turbo"], "defaults": {"steps": "4", "cfg": 7}}}}
    assert compose(values, {}).settings.models["x*"].defaults == {"steps": 4, "cfg": 7.0}


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("app.localhost", True),
        ("0.0.0.0", False),  # noqa: S104 (never bound)
        ("::", False),
        ("192.168.1.1", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("notlocalhost", False),
        ("", False),
    ],
)
def test_loopback_addresses(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_others_are_let_in_only_with_keys_or_on_purpose() -> None:
    open_host = {"server": {"host": "0.0.0.0"}}  # noqa: S104 (never bound)
    problem = compose(open_host, {}).exposed(asked=False)
    assert problem.startswith("server.host: '0.0.0.0' can be reached by others")
    assert "IMAGES_PROXY_KEYS" in problem
    assert "allow_anonymous" in problem
    assert not compose(open_host, {"IMAGES_PROXY_KEYS": " , "}).given.ask
    assert compose(open_host, {"IMAGES_PROXY_KEYS": "k"}).given.ask
    assert not compose(open_host, {}).exposed(asked=True)
    assert not compose({"server": {"host": "0.0.0.0", "allow_anonymous": True}}, {}).exposed(asked=False)  # noqa: S104
    assert _server(host="0.0.0.0", allow_anonymous=True).allow_anonymous  # noqa: S104 (never bound)


def test_a_proxy_needs_to_know_the_hosts_of_results() -> None:
    proxied = {"http_proxy": "http://127.0.0.1:3128"}
    assert _problems({"providers": {"imagelabs": proxied}})[0].startswith("providers.imagelabs.image_hosts: needed")
    compose({"providers": {"imagelabs": {**proxied, "image_hosts": ["pics.example"]}}}, {})
    compose({"providers": {"prodia": proxied}}, {})


def test_secrets_come_from_the_environment_and_never_show() -> None:
    environment = {"IMAGES_PROXY_KEYS": "first-key, second-key ,", "PRODIA_TOKEN": "provider-token"}
    configuration = compose({}, environment)
    assert set(configuration.given.callers) == {key_digest("first-key"), key_digest("second-key")}
    assert configuration.provider_keys["prodia"] == "provider-token"
    shown = f"{configuration!r} {configuration} {configuration.settings!r}"
    assert not any(secret in shown for secret in ("first-key", "second-key", "provider-token"))


def test_keys_may_come_from_another_variable_or_from_none() -> None:
    environment = {"IMAGES_PROXY_KEYS": "a", "OTHER": "b", "": "c"}
    assert compose({"server": {"api_keys_env": "OTHER"}}, environment).given.callers == {key_digest("b"): ""}
    assert compose({"server": {"api_keys_env": ""}}, environment).given.callers == {}


def _written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_goes_over_what_is_below_and_under_what_overrides(tmp_path: Path) -> None:
    path = _written(tmp_path, "[server]\nport = 1\nlog = 'json'\n[images]\nkeep = 5\n")
    below = {"images": {"directory": "/x", "keep": 1}, "server": {"log": "text"}}
    settings = load(path, {}, below=below, server={"port": 2}).settings
    assert (settings.server.port, settings.server.log) == (2, "json")
    assert (settings.images.directory, settings.images.keep) == ("/x", 5)


def test_problems_name_the_file(tmp_path: Path) -> None:
    path = _written(tmp_path, "[server]\nprt = 1\nlog = 'loud'\n")
    with pytest.raises(ConfigurationError) as refusal:
        load(path, {})
    assert len(refusal.value.problems) == 2
    assert all(problem.startswith(f"{path}: server.") for problem in refusal.value.problems)
    assert str(refusal.value) == "\n".join(refusal.value.problems)


@pytest.mark.parametrize(("text", "reason"), [(b"[server", "is not TOML"), (b'x = "\xff"', "is not UTF-8")])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError, match=reason):
        load(path, {})


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load(path, {})


def test_the_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"IMAGES_PROXY_CONFIG": "env.toml"}
    assert find_file(None, {}) is None
    Path("config.toml").touch()
    assert find_file(None, {}) == Path("config.toml")
    assert find_file(None, named) == Path("env.toml")
    assert find_file("mine.toml", named) == Path("mine.toml")
    assert find_file(None, named, look_here=False) is None
    assert find_file("mine.toml", named, look_here=False) == Path("mine.toml")


def test_settings_cannot_be_changed() -> None:
    configuration: Configuration = compose({}, {})
    with pytest.raises(ValueError, match="frozen"):
        configuration.settings.server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "values",
    [
        {"server": {"host": "192.0.2.1", "allow_anonymous": "perhaps"}},
        {"server": {"host": "192.0.2.1", "api_keys_env": 5}},
        {"providers": {"mine": {"kind": "prodigy"}}, "models": {"x": {"routes": ["mine/y"]}}},
        {"providers": {"imagelabs": {"http_proxy": "http://p:1", "image_hosts": [5]}}},
        {"providers": 5, "models": {"x": {"routes": ["prodia/y"]}}},
        {"models": [5]},
        {"models": {"x": {"routes": ["prodia/y"], "defaults": {"stepz": 1}}}},
        {"models": {"x": 5}},
        {"server": 5},
    ],
)
def test_what_follows_from_one_mistake_is_not_told_as_another(values: dict[str, Any]) -> None:
    assert len(_problems(values)) == 1


def test_every_place_that_is_wrong_in_the_same_table_is_told() -> None:
    model = {"routes": [5, "nowhere/x"], "response_format": "gif", "defaults": 3}
    places = {problem.partition(": ")[0] for problem in _problems({"models": {"x": model, "y": {"routes": []}}})}
    fields = ("x.routes.0", "x.response_format", "x.defaults", "y.routes")
    assert places == {f"models.{name}" for name in fields}


def test_names_and_keys_that_no_header_can_carry() -> None:
    tables = {"providers": {"画像": {"kind": "imagelabs"}}, "models": {" m": {"routes": ["imagelabs/sdxl-turbo"]}}}
    with pytest.raises(ConfigurationError) as error:
        compose(tables, {"PRODIA_API_KEY": "a\nb"})
    assert [problem.partition(":")[0] for problem in error.value.problems] == [
        "providers.画像",
        "models. m",
        "PRODIA_API_KEY",
    ]


def test_image_hosts_are_compared_in_lower_case() -> None:
    configuration = compose({"providers": {"prodia": {"image_hosts": ["CDN.Example"]}}}, {})
    assert configuration.settings.providers["prodia"].image_hosts == ("cdn.example",)
