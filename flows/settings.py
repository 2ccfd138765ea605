"""Settings at the rim: environment (MARKETFLOW_*), then ./marketflow.toml, then defaults.

Command-line flags win over both. Inside, frozen configs are built from these and passed down.
:class:`Settings` are those of every flow; a flow's own are a section upon them, a subclass that its
spec names (flows.catalogue). Names that set nothing are refused: see ``flows.variables``.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, create_model, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from marketflow.flows.catalogue import DEFAULT_FLOW, FlowSpec, find
from marketflow.flows.errors import UsageError
from marketflow.flows.variables import COMMON_SETTINGS, PREFIX, check_variables, read_file
from marketflow.schemas.units import interval_ns

#: Several words: a list, or text with commas.
Names = Annotated[tuple[str, ...], NoDecode]
#: How fast, how often and where. Every other setting decides rows, and a run that goes on must have
#: the ones that it began with.
FREE: Final = frozenset({"epoch_ms", "checkpoint_every", "checkpoints_kept", "batch_rows", "lake"})


class Settings(BaseSettings):
    """Settings that every flow has."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    shards: int = Field(16, ge=1, le=1024, description="shards per feed; fixed per deployment")
    tables: Names = Field((), description="tables to write, comma-separated")
    epoch_ms: int = Field(2000, ge=10, description="time between snapshots")
    checkpoint_every: str = Field("", description="of the feed's time or the clock, such as 1h")
    checkpoints_kept: int = Field(100, ge=1, description="by process; older ones go")
    batch_rows: int = Field(262_144, ge=1, description="most frames in one batch")
    lake: str = Field("lake", description="lake of sql and compact when none is named")

    def deciding_rows(self) -> dict[str, Any]:
        """The settings that decide rows, as plain values."""
        chosen = self.model_dump(mode="json", exclude=set(FREE))
        return {**chosen, "tables": sorted(chosen["tables"])}

    @field_validator("tables", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split(value)

    @field_validator("checkpoint_every")
    @classmethod
    def _known_span(cls, value: str) -> str:
        if value:
            interval_ns(value)
        return value

    @field_validator("tables")
    @classmethod
    def _known_tables(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = cls.model_fields["tables"].default
        unknown = [name for name in value if name not in known]
        if unknown:
            raise ValueError(f"no table {unknown[0]!r}; known: {', '.join(known)}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        fields = settings_cls.model_fields
        given = {name: value for name, value in read_file().items() if name in fields}
        return init_settings, env_settings, InitSettingsSource(settings_cls, given)


assert set(Settings.model_fields) == set(COMMON_SETTINGS)


def split(value: object) -> object:
    """Text with commas as several words; anything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


@cache
def settings_of(flow: FlowSpec) -> type[Settings]:
    """The settings of a flow, whose ``tables`` are all of its tables by default."""
    tables: Any = (Names, Field(tuple(flow.tables), description="tables to write"))
    return create_model(flow.settings.__name__, __base__=flow.settings, tables=tables)


def load(flow: FlowSpec | None = None, /, **flags: object) -> Settings:
    """The settings of a flow (None: of the first of the catalogue) with the flags that were given.

    Raises UsageError naming each wrong value or name.
    """
    check_variables(os.environ)
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    try:
        return settings_of(flow or find(DEFAULT_FLOW))(**given)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc']) or 'settings'}: "
            f"{e['msg'].removeprefix('Value error, ')} (got {e['input']!r})"
            for e in error.errors()
        ]
        raise UsageError(
            "; ".join(lines) + " - flags, MARKETFLOW_* variables or marketflow.toml set it"
        ) from None
