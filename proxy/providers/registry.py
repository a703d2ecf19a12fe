"""The providers: one file each, and the registry that names them. A new provider adds one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from proxy.config_problems import suggestion
from proxy.providers.boundary import Provider
from proxy.providers.imagelabs import ImageLabs
from proxy.providers.prodia import Prodia, ProdiaSettings
from proxy.providers.prodia_legacy import ProdiaLegacy, ProdiaLegacySettings
from proxy.providers.prodia_v1 import ProdiaV1
from proxy.providers.settings import KeyedSettings, ProviderSettings


@dataclass(frozen=True, slots=True)
class Kind:
    """What a ``kind`` stands for: how it is built from settings and a key, and its defaults."""

    build: Callable[[Any, str], Provider]
    base_url: str
    key_env: str = ""
    enabled: bool = True
    settings: type[ProviderSettings] = ProviderSettings


KINDS: dict[str, Kind] = {
    "prodia": Kind(Prodia.build, "https://inference.prodia.com/v2", "PRODIA_TOKEN", settings=ProdiaSettings),
    "prodia-v1": Kind(ProdiaV1.build, "https://api.prodia.com/v1", "PRODIA_API_KEY", settings=KeyedSettings),
    "prodia-legacy": Kind(ProdiaLegacy.build, "https://api.prodia.com", enabled=False, settings=ProdiaLegacySettings),
    "imagelabs": Kind(ImageLabs.build, "https://editor.imagelabs.net"),
}


def build(settings: ProviderSettings, key: str) -> Provider:
    """Return the provider of ``settings.kind``, bound to its address and key."""
    return KINDS[settings.kind].build(settings, key)


def settings_of_old(kind: str, base_url: str, key_env: str, now: ProviderSettings | None) -> ProviderSettings:
    """Return settings for jobs that were submitted before the configuration changed.

    ``now``: those that their provider's name has today; what they say about results' hosts holds for these jobs, too.
    Raises ValueError when the kind is not known.
    """
    table = {"kind": kind, "base_url": base_url, **({"key_env": key_env} if key_env else {})}
    if now is not None:
        table |= now.model_dump(include={"image_hosts", "allow_private_hosts", "http_proxy", "polls_per_second"})
        if now.kind == kind:
            table = {**now.model_dump(), **table}
    if kind not in KINDS:
        raise ValueError(f"unknown kind '{kind}'")
    return KINDS[kind].settings.model_validate(table)


def with_defaults(name: str, table: Any) -> Any:
    """Return the table called ``name`` with the defaults of its kind, which is ``name`` if it gives none.

    What is no table is returned as it is, for the settings class to refuse.
    """
    if not isinstance(table, Mapping):
        return table
    kind = table.get("kind", name)
    if not isinstance(kind, str) or kind not in KINDS:
        return {"kind": kind, **table}
    own = KINDS[kind]
    # Prodia-legacy is off by default; whoever writes a table of another name for it wants it on.
    defaults = {"base_url": own.base_url, "enabled": own.enabled or name != kind}
    key = {"key_env": own.key_env} if own.key_env else {}
    return {"kind": kind, **defaults, **key, **table}


def read_settings(table: Any) -> Any:
    """Read a table with the settings class of its kind; what is no table is returned. Raises ValidationError."""
    if not isinstance(table, Mapping) or "kind" not in table:
        return table
    kind = table["kind"]
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind].settings.model_validate(table)
    unknown = PydanticCustomError("unknown_kind", "unknown kind; {hint}", {"hint": suggestion(str(kind), KINDS)})
    raise ValidationError.from_exception_data("kind", [{"type": unknown, "loc": ("kind",), "input": kind}])


def known_keys(kind: str) -> Mapping[str, str]:
    """Return the keys of all kinds: those of ``kind`` with an empty text, others with the kinds they are for."""
    kinds: dict[str, list[str]] = {}
    for name, each in KINDS.items():
        for key in each.settings.model_fields:
            kinds.setdefault(key, []).append(name)
    return {key: "" if kind in names else f"kind {' and '.join(names)}" for key, names in kinds.items()}
