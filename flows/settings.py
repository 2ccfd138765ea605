"""Settings at the rim: environment (MARKETFLOW_*), then ./marketflow.toml, then defaults.

Command-line flags win over both. Inside, frozen configs are built from these and passed down.
Names that set nothing are refused: see ``flows.variables``.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from marketflow.flows.errors import UsageError
from marketflow.flows.variables import PREFIX, SETTINGS, check_variables, read_file
from marketflow.operators.instruments import MAX_INSTRUMENTS
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import interval_ns

Names = Annotated[tuple[str, ...], NoDecode]
#: How fast, how often and where. Every other setting decides rows, and a run that goes on must have
#: the ones that it began with.
FREE: Final = frozenset({"epoch_ms", "checkpoint_every", "checkpoints_kept", "batch_rows", "lake"})


class Settings(BaseSettings):
    """Everything a deployment may set of a flow."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    shards: int = Field(16, ge=1, le=1024, description="shards per feed; fixed per deployment")
    tables: Names = Field(tuple(TABLES), description="tables to write, comma-separated")
    intervals: Names = Field(("1s", "1m", "1h"), description="bar intervals")
    late_ms: int = Field(1000, ge=0, description="how late a trade may still enter its bar")
    depth_interval_ms: int = Field(0, ge=0, description="0: a depth row per change")
    clock_skew_ms: int = Field(500, ge=0, description="arrival this much before the event: skew")
    epoch_ms: int = Field(2000, ge=10, description="time between snapshots")
    checkpoint_every: str = Field("", description="of the feed's time or the clock, such as 1h")
    checkpoints_kept: int = Field(100, ge=1, description="by process; older ones go")
    max_instruments: int = Field(
        MAX_INSTRUMENTS,
        ge=1,
        le=1 << 23,
        description="instruments of a feed; more: dead letters",
    )
    batch_rows: int = Field(262_144, ge=1, description="most frames in one batch")
    lake: str = Field("lake", description="lake of sql and compact when none is named")

    def deciding_rows(self) -> dict[str, Any]:
        """The settings that decide rows, as plain values."""
        chosen = self.model_dump(mode="json", exclude=set(FREE))
        return {**chosen, "tables": sorted(chosen["tables"])}

    @field_validator("tables", "intervals", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("checkpoint_every")
    @classmethod
    def _known_span(cls, value: str) -> str:
        if value:
            interval_ns(value)
        return value

    @field_validator("tables")
    @classmethod
    def _known_tables(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in TABLES]
        if unknown:
            raise ValueError(f"no table {unknown[0]!r}; known: {', '.join(TABLES)}")
        return value

    @field_validator("intervals")
    @classmethod
    def _known_intervals(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            interval_ns(text)
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
        given = {name: value for name, value in read_file().items() if name in SETTINGS}
        return init_settings, env_settings, InitSettingsSource(settings_cls, given)


assert set(Settings.model_fields) == set(SETTINGS)


def load(**flags: object) -> Settings:
    """Settings with the flags that were given; UsageError naming each wrong value or name."""
    check_variables(os.environ)
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc']) or 'settings'}: "
            f"{e['msg'].removeprefix('Value error, ')} (got {e['input']!r})"
            for e in error.errors()
        ]
        raise UsageError(
            "; ".join(lines) + " - flags, MARKETFLOW_* variables or marketflow.toml set it"
        ) from None
