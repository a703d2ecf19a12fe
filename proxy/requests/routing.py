"""Finds the routes behind a model's public name: which providers, and under which of their own names."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from proxy.errors import InvalidRequest, NotConfigured, UnknownModel
from proxy.providers.boundary import Model
from proxy.requests.image_request import PROVIDER_FIELDS, parse

_MAX_SHOWN = 100
_SAME_START, _MAX_COMPARED = 16, 30
"""Only so many names with the same start are compared: all of them would hold up the event loop for tens of ms."""


class ChatSettings(BaseModel):
    """The ``[chat]`` table. ``auto``: as the request's ``modalities`` say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["auto", "markdown", "images"] = "auto"


class ModelSettings(BaseModel):
    """One ``[models.NAME]`` table; ``config`` gives it the default routes if it names none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    routes: tuple[str, ...] = Field(default=(), min_length=1)
    response_format: Literal["", "url", "b64_json"] = ""
    chat_form: Literal["", "auto", "markdown", "images"] = ""
    defaults: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("defaults")
    @classmethod
    def _known_parameters(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        strange = sorted(set(values) - PROVIDER_FIELDS)
        if strange:
            raise ValueError(f"unknown parameter '{strange[0]}'; known are {', '.join(sorted(PROVIDER_FIELDS))}")
        try:
            request, _ = parse({"prompt": "-", **values})
        except InvalidRequest as error:
            raise ValueError(error.message) from None
        return request.model_dump(include=set(values))


def to_be_listed(models: Mapping[str, ModelSettings], given: object, built_in: Sequence[str]) -> tuple[str, ...]:
    """Return the names of ``models`` that a file's table ``given`` names, or those that are built in if it names none.

    Patterns are not listed.
    """
    mine, others = (
        tuple(name for name in names if name in models and not name.endswith("*"))
        for names in (given if isinstance(given, Mapping) else (), built_in)
    )
    return mine or others


@dataclass(slots=True)
class ModelCatalogue:
    """A configured provider as routing sees it: its models by every name, and why it can't be used, if so."""

    name: str
    why_not: str = ""
    models: dict[str, Model] = field(default_factory=dict)
    by_name: dict[str, Model] = field(default_factory=dict)

    def offer(self, models: Iterable[Model]) -> None:
        """Replace what this provider offers."""
        self.models = {model.name: model for model in models}
        # Reversed, so that of two models with the same alias the first has it; and a name wins over any alias.
        aliases = {alias: model for model in reversed(self.models.values()) for alias in model.aliases}
        self.by_name = {**aliases, **self.models}


@dataclass(frozen=True, slots=True)
class Route:
    """A provider's name in the configuration plus one of its own models."""

    provider: str
    model: Model

    def __str__(self) -> str:
        return f"{self.provider}/{self.model.name}"


@dataclass(frozen=True, slots=True)
class PublicModel:
    """What a public name stands for. ``response_format``: as configured; if empty, the name decides.

    ``chat_form``: as configured; if empty, the service's.
    """

    name: str
    routes: tuple[Route, ...]
    response_format: Literal["", "url", "b64_json"]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    chat_form: Literal["", "auto", "markdown", "images"] = ""

    def full_names(self) -> tuple[str, ...]:
        """Return its names with the provider in front, if it is a provider's own model."""
        return tuple(
            str(route)
            for route in self.routes
            if self.name.removeprefix(f"{route.provider}/") in (route.model.name, *route.model.aliases)
        )

    def form(self, *, like_gpt: bool = False) -> Literal["url", "b64_json"]:
        """Return the form for requests that name none; ``like_gpt``: the form of OpenAI's GPT models."""
        # They answer with base64 only: https://platform.openai.com/docs/api-reference/images/create
        gpt = like_gpt or "gpt-image" in self.name or self.name.startswith("chatgpt-image")
        return self.response_format or ("b64_json" if gpt else "url")


class Routing:
    """The configured names and the providers' own names, with the routes behind them.

    ``where_listed``: how errors tell the caller to see all names.
    """

    where_listed = "GET /v1/models"

    def __init__(
        self,
        models: Mapping[str, ModelSettings],
        catalogues: Sequence[ModelCatalogue],
        listed: Sequence[str] | None = None,
    ) -> None:
        """``listed``: the only names to list, of those in ``models``; None: all, and the providers' own."""
        self._configured = dict(models)
        self._listed = listed
        self._catalogues = {catalogue.name: catalogue for catalogue in catalogues}
        # The longest first: the most specific pattern wins.
        patterns = (name[:-1] for name in models if name.endswith("*"))
        self._patterns = sorted(patterns, key=len, reverse=True)

    def resolve(self, name: str) -> PublicModel:
        """Return the usable routes of ``name``. Raises UnknownModel, or NotConfigured when none is usable now."""
        # A pattern's own key is no model's name, though a caller could send it.
        settings = None if name.endswith("*") else self._configured.get(name)
        # Gateways such as LiteLLM name models like this (docs/clients.md).
        if settings is None and name.startswith("openai/") and not self._has_pattern("openai/"):
            return self.resolve(name.removeprefix("openai/"))
        if settings is None:
            native = self._native(name)
            if native is not None:
                return self._usable(name, ModelSettings(routes=(str(native),)), (native,))
            settings = None if name.endswith("*") else self._pattern(name)
        if settings is None:
            raise self._unknown(name)
        routes = (self._route(route) for route in settings.routes)
        return self._usable(name, settings, tuple(route for route in routes if route is not None))

    def listed(self) -> Iterable[tuple[str, str]]:
        """Yield each public name to be listed, with its owner."""
        return self.known() if self._listed is None else ((name, "images-proxy") for name in self._listed)

    def known(self) -> Iterable[tuple[str, str]]:
        """Yield each public name with its owner: the configured names, then what usable providers offer."""
        for name in self._configured:
            if not name.endswith("*"):
                yield name, "images-proxy"
        for catalogue in self._catalogues.values():
            if not catalogue.why_not:
                for model in catalogue.models:
                    yield f"{catalogue.name}/{model}", catalogue.name

    def chat_form(self, name: object) -> Literal["", "auto", "markdown", "images"]:
        """Return the form that a name's own table sets for chat; empty if it sets none, or the name leads nowhere."""
        try:
            return self.resolve(str(name)).chat_form
        except (NotConfigured, UnknownModel):
            return ""

    def usable(self, name: str) -> tuple[Route, ...]:
        """Return the usable routes of a name; none if it has none."""
        try:
            return self.resolve(name).routes
        except (NotConfigured, UnknownModel):
            return ()

    def configured(self) -> Iterable[tuple[str, ModelSettings]]:
        """Yield the configured names, patterns included, with their settings."""
        yield from self._configured.items()

    def why_unusable(self, route: str) -> str:
        """Return why ``route``, as written in the configuration, can't be used now; empty if it can."""
        provider, _, model = route.partition("/")
        catalogue = self._catalogues.get(provider)
        if catalogue is None:
            return "no such provider"
        return catalogue.why_not or ("" if model in catalogue.by_name else "the provider has no such model")

    def _usable(self, name: str, settings: ModelSettings, routes: tuple[Route, ...]) -> PublicModel:
        usable = tuple(route for route in routes if not self._catalogues[route.provider].why_not)
        if not usable:
            reasons = sorted({f"{r.provider}: {self._catalogues[r.provider].why_not}" for r in routes})
            detail = f" ({'; '.join(reasons)})" if reasons else ""
            raise NotConfigured(f"No provider of the model '{_shown(name)}' is configured{detail}.", param="model")
        return PublicModel(name, usable, settings.response_format, settings.defaults, settings.chat_form)

    def _route(self, route: str) -> Route | None:
        provider, _, name = route.partition("/")
        catalogue = self._catalogues.get(provider)
        model = catalogue.by_name.get(name) if catalogue else None
        return Route(provider, model) if model else None

    def _native(self, name: str) -> Route | None:
        qualified = self._route(name)
        if qualified is not None:
            return qualified
        found = [Route(s.name, s.by_name[name]) for s in self._catalogues.values() if name in s.by_name]
        # Where two offer it, the usable one is meant. All, if none is: then the error can name why.
        usable = [route for route in found if not self._catalogues[route.provider].why_not]
        candidates = usable or found
        if len(candidates) > 1:
            names = " or ".join(f"'{route}'" for route in candidates)
            raise UnknownModel(f"The model '{_shown(name)}' is offered by several providers; use {names}.")
        return candidates[0] if candidates else None

    def _pattern(self, name: str) -> ModelSettings | None:
        for prefix in self._patterns:
            if name.startswith(prefix):
                return self._configured[f"{prefix}*"]
        return None

    def _has_pattern(self, start: str) -> bool:
        return any(prefix.startswith(start) for prefix in self._patterns)

    def _unknown(self, name: str) -> UnknownModel:
        known = [each for each, _ in self.known()]
        start = name[:_SAME_START].lower()
        alike = [other for other in known if other.lower().startswith(start) or "/" not in other][:_MAX_COMPARED]
        near = difflib.get_close_matches(name[:_MAX_SHOWN], alike, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else f" {self.where_listed} lists the known ones."
        return UnknownModel(f"The model '{_shown(name)}' does not exist.{hint}")


def _shown(name: str) -> str:
    """Return the model name of a caller, made fit for a message: printable and not too long."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return printable if len(printable) <= _MAX_SHOWN else f"{printable[:_MAX_SHOWN]}…"
