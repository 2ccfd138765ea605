"""All local services together: up, down, status, reset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from marketflow.infra.services.base import Service, ServiceError, State
from marketflow.infra.services.kafka import Kafka
from marketflow.infra.services.prometheus import Prometheus
from marketflow.infra.services.timescale import Timescale
from marketflow.schemas.cache import cache_folder

SERVICES: Final[dict[str, type[Service]]] = {
    service.name: service for service in (Kafka, Timescale, Prometheus)
}


def home() -> Path:
    """Where services live: MARKETFLOW_SERVICES, or our cache folder."""
    return Path(os.environ.get("MARKETFLOW_SERVICES", cache_folder() / "services")).absolute()


def services(only: Sequence[str] = (), folder: Path | None = None) -> list[Service]:
    """The services named by ``only`` (all if empty); ServiceError for an unknown name."""
    unknown = [name for name in only if name not in SERVICES]
    if unknown:
        raise ServiceError(f"no service {unknown[0]!r}; known: {', '.join(SERVICES)}")
    chosen = [cls for name, cls in SERVICES.items() if not only or name in only]
    return [cls(folder or home(), _port(cls)) for cls in chosen]


def _port(service: type[Service]) -> int:
    variable = f"MARKETFLOW_{service.name.upper()}_PORT"
    text = os.environ.get(variable, str(service.default_port))
    if not text.isdigit() or not 1024 <= int(text) <= 65000:
        raise ServiceError(f"{variable}={text!r} is no port between 1024 and 65000")
    return int(text)


def up(chosen: Sequence[Service], say: Callable[[str], None]) -> dict[str, State]:
    """Start what is not running; the first failure names its fix and leaves the others up."""
    return {service.name: service.up(say) for service in chosen}


def down(chosen: Sequence[Service]) -> dict[str, State]:
    """Stop what we started."""
    for service in reversed(chosen):
        service.down()
    return status(chosen)


def status(chosen: Sequence[Service]) -> dict[str, State]:
    """What is true now."""
    return {service.name: service.state() for service in chosen}


def reset(chosen: Sequence[Service]) -> dict[str, State]:
    """Stop and forget all data."""
    for service in reversed(chosen):
        service.reset()
    return status(chosen)
