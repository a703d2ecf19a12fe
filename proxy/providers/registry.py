"""The providers: one file each, and the registry that names them. A new provider adds one line here."""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.providers.boundary import Provider
from proxy.providers.imagelabs import ImageLabs
from proxy.providers.prodia import Prodia
from proxy.providers.prodia_legacy import ProdiaLegacy
from proxy.providers.prodia_v1 import ProdiaV1
from proxy.providers.settings import ProviderSettings


@dataclass(frozen=True, slots=True)
class Kind:
    """What a ``kind`` stands for: how it is built, where it lives and which variable holds its key by default."""

    build: Callable[[ProviderSettings, str], Provider]
    base_url: str
    key_env: str = ""
    enabled: bool = True


KINDS: dict[str, Kind] = {
    "prodia": Kind(Prodia.build, "https://inference.prodia.com/v2", "PRODIA_TOKEN"),
    "prodia-v1": Kind(ProdiaV1.build, "https://api.prodia.com/v1", "PRODIA_API_KEY"),
    "prodia-legacy": Kind(ProdiaLegacy.build, "https://api.prodia.com", enabled=False),
    "imagelabs": Kind(ImageLabs.build, "https://editor.imagelabs.net"),
}


def build(settings: ProviderSettings, key: str) -> Provider:
    """Return the provider of ``settings.kind``, bound to its address and key."""
    return KINDS[settings.kind].build(settings, key)
