"""The settings of one provider, as in the configuration's ``[providers.NAME]`` table.

A kind with settings of its own has a class beside its dialect; the registry lists which class belongs to which kind.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from proxy.dollars import nano_dollars


class ProviderSettings(BaseModel):
    """What every kind has; the registry fills in the defaults that depend on the kind.

    ``prices``: of a picture, by model: written in dollars, read as nano-dollars.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    base_url: str = Field(pattern=r"^https?://[^\s]+$")
    enabled: bool = True
    max_jobs: int = Field(default=8, ge=1, le=10_000)
    polls_per_second: float = Field(default=0, ge=0)
    prices: Mapping[str, Annotated[int, BeforeValidator(nano_dollars)]] = Field(default_factory=dict)
    image_hosts: tuple[Annotated[str, StringConstraints(to_lower=True)], ...] = ()
    allow_private_hosts: bool = False
    http_proxy: str = Field(default="", pattern=r"^(https?://[^\s]+)?$")

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key; empty where none is asked."""
        return ""


class KeyedSettings(ProviderSettings):
    """The settings of a kind that needs a key."""

    key_env: str = ""

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key; empty where none is asked."""
        return self.key_env
