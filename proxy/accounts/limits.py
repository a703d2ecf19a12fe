"""The ``[limits]`` table: what the whole service, and each owner of keys, may spend."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, field_validator

from proxy.accounts.amounts import read_limits
from proxy.state.money import Limit


class OwnerLimits(BaseModel):
    """``[limits.owners.NAME]``: held for all keys of an owner together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()

    @field_validator("budget")
    @classmethod
    def _dollars(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        read_limits(values, (), "")
        return values

    @field_validator("pictures")
    @classmethod
    def _numbers(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        read_limits((), values, "")
        return values


class LimitSettings(OwnerLimits):
    """The ``[limits]`` table."""

    owners: Mapping[str, OwnerLimits] = Field(default_factory=dict)

    def limits(self) -> tuple[Limit, ...]:
        """Return them all, for the state."""
        found = list(read_limits(self.budget, self.pictures, "all"))
        for name, owner in self.owners.items():
            found += read_limits(owner.budget, owner.pictures, f"owner:{name}")
        return tuple(found)
