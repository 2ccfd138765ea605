"""The same services through ``docker compose``, where an engine answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from marketflow.infra.services.base import Service, ServiceError, State
from marketflow.infra.services.timescale import Timescale

_COMPOSE: Final = Path(__file__).resolve().parents[1] / "compose.yaml"


def engine_answers() -> bool:
    """Whether a Docker engine (not just its client) is here; MARKETFLOW_DOCKER=0 says no."""
    if os.environ.get("MARKETFLOW_DOCKER") == "0" or shutil.which("docker") is None:
        return False
    done = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    return done.returncode == 0 and bool(done.stdout.strip())


def _compose(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", "compose", "-f", str(_COMPOSE), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ServiceError(f"docker compose {arguments[0]} failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def url_of(service: Service) -> str:
    """Address of the container's port on loopback (the compose file's credentials)."""
    if service.name == "timescale":
        password = os.environ.get("MARKETFLOW_TIMESCALE_PASSWORD", "marketflow")
        return f"postgresql://marketflow:{password}@127.0.0.1:{service.port}/marketflow"
    return service.url


def up(chosen: Sequence[Service], say: Callable[[str], None]) -> dict[str, State]:
    """``docker compose up -d --wait`` for the chosen services."""
    say("starting containers: " + ", ".join(s.name for s in chosen))
    _compose("up", "-d", "--wait", *(s.name for s in chosen))
    for service in chosen:
        if isinstance(service, Timescale):
            service.make_reader(url_of(service))
    return status(chosen)


def down(chosen: Sequence[Service]) -> dict[str, State]:
    """Stop the containers; volumes stay."""
    _compose("stop", *(s.name for s in chosen))
    _compose("rm", "-f", *(s.name for s in chosen))
    return status(chosen)


def reset(chosen: Sequence[Service]) -> dict[str, State]:
    """Stop the containers and remove their volumes."""
    down(chosen)
    for service in chosen:
        subprocess.run(
            ["docker", "volume", "rm", "-f", f"marketflow_{service.name}"],
            capture_output=True, check=False,
        )  # fmt: skip
    return status(chosen)


def status(chosen: Sequence[Service]) -> dict[str, State]:
    """State by container: healthy is up."""
    listed = _compose("ps", "--all", "--format", "json")
    found = {}
    for line in listed.splitlines():
        container = json.loads(line)
        found[container["Service"]] = (container["State"], container.get("Health", ""))
    states = {}
    for service in chosen:
        state, health = found.get(service.name, ("missing", ""))
        if state == "running":
            word = "up" if health in ("", "healthy") else "starting"
        else:
            word = "down"
        reader = service.reader_url if word == "up" else ""
        states[service.name] = State(word, url_of(service), health, reader)
    return states
