"""The settings of one provider, as the configuration's ``[providers.NAME]`` table says them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class ProviderSettings(BaseModel):
    """One ``[providers.NAME]`` table, its kind's defaults filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["prodia", "prodia-v1", "prodia-legacy", "imagelabs"]
    base_url: str = Field(pattern=r"^https?://[^\s]+$")
    key_env: str = ""
    mode: Literal["sync", "async"] = "sync"
    enabled: bool = True
    max_jobs: int = Field(default=8, ge=1, le=10_000)
    polls_per_second: float = Field(default=0, ge=0)
    image_hosts: tuple[Annotated[str, StringConstraints(to_lower=True)], ...] = ()
    allow_private_hosts: bool = False
    image_base_url: str = Field(default="", pattern=r"^(https?://[^\s]+)?$")
    http_proxy: str = Field(default="", pattern=r"^(https?://[^\s]+)?$")
