"""Settings of market_data, a section upon those of every flow."""

from __future__ import annotations

from pydantic import Field, field_validator

from marketflow.flows.settings import Names, Settings, split
from marketflow.operators.instruments import MAX_INSTRUMENTS
from marketflow.schemas.units import interval_ns


class MarketDataSettings(Settings):
    """Settings of the market_data flow."""

    intervals: Names = Field(("1s", "1m", "1h"), description="bar intervals")
    late_ms: int = Field(1000, ge=0, description="how late a trade may still enter its bar")
    depth_interval_ms: int = Field(0, ge=0, description="0: a depth row per change")
    clock_skew_ms: int = Field(500, ge=0, description="arrival this much before the event: skew")
    max_instruments: int = Field(
        MAX_INSTRUMENTS,
        ge=1,
        le=1 << 23,
        description="instruments of a feed; more: dead letters",
    )

    @field_validator("intervals", mode="before")
    @classmethod
    def _split_intervals(cls, value: object) -> object:
        return split(value)

    @field_validator("intervals")
    @classmethod
    def _known_intervals(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            interval_ns(text)
        return value
