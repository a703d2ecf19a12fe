"""The configuration: a TOML file over built-in defaults, all problems reported at once, secrets only named.

The settings class of each part is beside the code that uses it; this module composes them.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from proxy.accounts.given import NONE_GIVEN, GivenKeys, read_given
from proxy.accounts.limits import LimitSettings
from proxy.config_problems import describe, read_what_is_right
from proxy.pictures.store import ImageSettings
from proxy.providers.registry import KINDS, build, known_keys, read_settings, with_defaults
from proxy.providers.settings import ProviderSettings
from proxy.requests.routing import ChatSettings, ModelSettings, to_be_listed
from proxy.state.settings import StateSettings

Seconds = Annotated[float, Field(gt=0, le=86_400)]

# In the order in which they are tried: docs/providers.md gives their prices and times.
_DEFAULT_ROUTES = (
    "prodia/inference.flux-fast.schnell.txt2img.v2",
    "prodia/inference.flux-2.klein.4b.img2img.v1",
    "prodia/inference.sdxl.inpainting.v1",
    "imagelabs/sdxl-turbo",
    "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]",
)
# OpenAI's names, hard-coded in many clients. A name with "*" answers those that don't exist yet.
_NAMES = (
    "dall-e-3",
    "dall-e-2",
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "gpt-image-2",
    "gpt-image-2.5-sunburst",
    "gpt-image-2.5-flare",
    "gpt-image-2.6-sunburst",
    "gpt-image-2.6-flare",
    "chatgpt-image-latest",
    "stablediffusion",
    "gpt-image-*",
    "chatgpt-image-*",
    "dall-e-*",
)
_NAMED = ("providers", "models")
"""Tables whose keys are names, each with a table of its own."""


class ServerSettings(BaseModel):
    """The ``[server]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65_535)
    public_url: str = Field(default="", pattern=r"^(https?://[^\s/]+[^\s]*)?$")
    trusted_proxies: tuple[str, ...] = ("127.0.0.1",)
    api_keys_env: str = "IMAGES_PROXY_KEYS"
    allow_anonymous: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    default_model: str = "dall-e-3"
    default_routes: tuple[str, ...] = Field(default=_DEFAULT_ROUTES, min_length=1)
    admin_key_env: str = "IMAGES_PROXY_ADMIN_KEY"
    metrics_key_env: str = "IMAGES_PROXY_METRICS_KEY"
    list_models: Literal["all", "configured"] = "all"
    strict_params: bool = False
    max_in_flight: int = Field(default=1000, ge=1)
    max_per_key: int = Field(default=0, ge=0)
    max_body: int = Field(default=1_048_576, ge=1024)
    max_upload: int = Field(default=52_428_800, ge=1024)
    log: Literal["auto", "json", "text"] = "auto"

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            ipaddress.ip_network(value, strict=False)
        return values


class Timeouts(BaseModel):
    """The ``[timeouts]`` table, in seconds; docs/configuration.md describes each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hold: Seconds = 280
    lifetime: Seconds = 300
    submit: Seconds = 15
    poll: Seconds = 5
    header: Seconds = 5
    body: Seconds = 10
    result: Seconds = 120
    drain: Seconds = 30
    poll_worth: Seconds = 0.06
    heartbeat: float = Field(default=0, ge=0, le=86_400)


class Settings(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: ServerSettings = ServerSettings()
    timeouts: Timeouts = Timeouts()
    state: StateSettings = StateSettings()
    images: ImageSettings = ImageSettings()
    limits: LimitSettings = LimitSettings()
    chat: ChatSettings = ChatSettings()
    providers: Mapping[str, Annotated[ProviderSettings, BeforeValidator(read_settings)]]
    models: Mapping[str, ModelSettings]

    @field_validator("models")
    @classmethod
    def _with_routes(cls, models: Mapping[str, ModelSettings], others: ValidationInfo) -> Mapping[str, ModelSettings]:
        """Give every table without routes those of the server, which is read before."""
        # Missing where it is wrong itself, which is reported anyway (ValidationInfo.data, docs.pydantic.dev).
        if "server" not in others.data:
            return models
        routes = {"routes": others.data["server"].default_routes}
        return {name: model if model.routes else model.model_copy(update=routes) for name, model in models.items()}

    @property
    def routes(self) -> Mapping[str, tuple[str, ...]]:
        """Every list of routes by the key that sets it; the default ones once, whichever models use them."""
        default = self.server.default_routes
        own = {name: model.routes for name, model in self.models.items() if model.routes is not default}
        return {"server.default_routes": default} | {f"models.{name}.routes": routes for name, routes in own.items()}


class ConfigurationError(Exception):
    """The configuration cannot be used; ``problems`` holds one line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings with the secrets they name, none in ``repr``. ``listed``: for ``Routing``; ``demo``: simulated."""

    settings: Settings
    given: GivenKeys = field(default=NONE_GIVEN, repr=False)
    listed: tuple[str, ...] | None = None
    provider_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    state_file: Path | None = None
    database_url: str = field(default="", repr=False)
    demo: bool = False
    demo_admin_key: str = field(default="", repr=False)

    @property
    def directory(self) -> Path:
        """The folder for pictures: the one named, else beside the state's file, else under the user's cache."""
        if self.settings.images.directory:
            return Path(self.settings.images.directory).expanduser()
        return self.state_file.parent / "pictures" if self.state_file is not None else _cache_directory()

    def exposed(self, *, asked: bool) -> str:
        """Return what is wrong with listening where others can call without a key; empty if nothing is.

        ``asked``: whether callers need a key, which may depend on the state.
        """
        server = self.settings.server
        if asked or is_loopback(server.host) or server.allow_anonymous:
            return ""
        return (
            f"server.host: '{server.host}' can be reached by others; set keys in ${server.api_keys_env}, make one with "
            "'images-proxy keys create', or set server.allow_anonymous = true if anyone may spend your money"
        )

    def secret(self, variable: str) -> str:
        """Return what an environment variable holds now, or held when a provider of this configuration read it."""
        providers = self.settings.providers
        known = (key for name, key in self.provider_keys.items() if providers[name].key_variable == variable)
        return next(known, os.environ.get(variable, "").strip())

    def why_not(self, provider: str) -> str:
        """Return why a provider can't be used, in a few words; empty if it can."""
        settings = self.settings.providers[provider]
        if not settings.enabled:
            return "not enabled"
        if settings.key_variable and not self.provider_keys.get(provider):
            return f"{settings.key_variable} is not set"
        return ""

    def how_to_use(self, provider: str) -> str:
        """Return what would make a provider usable that isn't."""
        settings = self.settings.providers[provider]
        steps = [] if settings.enabled else [f"set enabled = true in [providers.{provider}]"]
        if settings.key_variable and not self.provider_keys.get(provider):
            steps.append(f"set {settings.key_variable} in the environment")
        return " and ".join(steps)


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "images-proxy"


def find_file(path: str | None, environment: Mapping[str, str], *, look_here: bool = True) -> Path | None:
    """Return the file to read: ``path``, else ``$IMAGES_PROXY_CONFIG``, else ``./config.toml`` if there is one.

    ``look_here`` false: only ``path`` counts.
    """
    named = path or (environment.get("IMAGES_PROXY_CONFIG") if look_here else None)
    if named:
        return Path(named)
    here = Path("config.toml")
    return here if look_here and here.is_file() else None


def load(
    path: Path | None,
    environment: Mapping[str, str] = os.environ,
    *,
    below: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Configuration:
    """Read the file over the defaults and over ``below``; ``overrides`` go over all, table by table.

    Raises ConfigurationError.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise ConfigurationError([f"{path}: cannot be read: {reason}"]) from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError([f"{path}: is not TOML: {error}"]) from None
    try:
        return compose(_merge(_merge(below or {}, values), overrides), environment)
    except ConfigurationError as error:
        place = str(path) if path else "configuration"
        raise ConfigurationError([f"{place}: {problem}" for problem in error.problems]) from None


def compose(values: Mapping[str, Any], environment: Mapping[str, str]) -> Configuration:
    """Put ``values`` over the defaults and gather the secrets they name. Raises ConfigurationError."""
    merged = _tables(values)
    settings, wrong = read_what_is_right(Settings, merged, _tables({}))
    problems = [describe(details, partial(_known_keys, merged)) for details in wrong]
    server = settings.server
    variables = (server.api_keys_env, server.admin_key_env, server.metrics_key_env)
    callers, admin, metrics = (environment.get(name, "").strip() if name else "" for name in variables)
    given, doubts = read_given(callers, admin, metrics, variables)
    problems += doubts
    shortened = server.list_models == "configured"
    configuration = Configuration(
        settings,
        given=given,
        listed=to_be_listed(settings.models, values.get("models"), _NAMES) if shortened else None,
        provider_keys={
            name: environment.get(table.key_variable, "").strip()
            for name, table in settings.providers.items()
            if table.key_variable
        },
        state_file=settings.state.file(environment),
        database_url=settings.state.database_url(environment),
    )
    doubtful = frozenset(tuple(map(str, details["loc"][:2])) for details in wrong)
    problems += _contradictions(configuration, merged, doubtful)
    if problems:
        raise ConfigurationError(problems)
    return configuration


def is_loopback(host: str) -> bool:
    """Whether a host, to bind to or named by a client, is this machine alone."""
    # RFC 6761, 6.3: names under "localhost" never leave the machine.
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _contradictions(
    configuration: Configuration, tables: Mapping[str, Any], doubtful: frozenset[tuple[str, ...]]
) -> list[str]:
    """Return what is wrong although each value by itself is right.

    ``tables``: the values as given. ``doubtful``: places (table and key) with another problem, which would only
    be reported twice.
    """
    names = {table: tables[table] for table in _NAMED if isinstance(tables[table], Mapping)}
    settings = configuration.settings
    problems: list[str] = []
    problems += (
        f"{key}: '{route}' names no provider of this configuration"
        for key, routes in settings.routes.items()
        for route in routes
        if "/" not in route or route.partition("/")[0] not in names.get("providers", settings.providers)
    )
    problems += (
        f"{table}.{name}: a name holds printable ASCII characters only, since it travels in headers"
        for table, given in names.items()
        for name in given
        if not (name.isascii() and name.isprintable() and name.strip() == name and name)
    )
    problems += (
        f"{settings.providers[name].key_variable}: holds a character that cannot be sent in a header"
        for name, key in configuration.provider_keys.items()
        if not (key.isascii() and key.isprintable())
    )
    problems += (
        f"providers.{name}.image_hosts: needed with http_proxy, behind which addresses of results can't be checked"
        for name, provider in settings.providers.items()
        if provider.http_proxy
        and ("providers", name) not in doubtful
        and not (provider.image_hosts or build(provider, "").image_hosts)
    )
    return problems


def _tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``values`` over the built-in providers and models, each provider with the defaults of its kind."""
    merged = _merge({"providers": {name: {} for name in KINDS}, "models": {name: {} for name in _NAMES}}, values)
    if isinstance(merged["providers"], Mapping):
        merged["providers"] = {name: with_defaults(name, table) for name, table in merged["providers"].items()}
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``above`` over ``below``, table by table and key by key. A value is replaced whole, even if it is a table."""
    merged = {table: _over(below.get(table), values, 2 if table in _NAMED else 1) for table, values in above.items()}
    return {**below, **merged}


def _over(below: Any, above: Any, levels: int) -> Any:
    """Return ``above`` with the keys that only ``below`` has, if both are tables; likewise inside, ``levels`` deep."""
    if levels == 0 or not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _over(below.get(key), value, levels - 1) for key, value in above.items()}}


def _known_keys(tables: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, str]:
    """Return the keys of the table at ``path``; those for other tables only come with the name of what they are for."""
    if path and path[0] == "providers":
        return known_keys(tables["providers"][path[1]]["kind"])
    if path and path[0] == "models":
        return dict.fromkeys(ModelSettings.model_fields, "")
    table = type(Settings.model_fields[path[0]].default) if path else Settings
    return dict.fromkeys(table.model_fields, "")
