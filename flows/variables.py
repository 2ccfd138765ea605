"""Names that a deployment may set: MARKETFLOW_* variables and keys of ./marketflow.toml.

Every flag of ``run`` has both, ``--lake``, ``--dsn`` and ``--brokers`` of every command too. A flag
on the command line wins over the variable, the variable over the file. A name that is none of
these is refused: a misspelt MARKETFLOW_RECOVERY would run without its guarantee.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from marketflow.flows.catalogue import FLOWS
from marketflow.flows.errors import UsageError, nearest
from marketflow.schemas.kafka_address import SECURITY_PARAMS

PREFIX: Final = "MARKETFLOW_"
FILE: Final = "marketflow.toml"
#: Settings of every flow (``flows.settings``, which takes too long to import for every command).
COMMON_SETTINGS: Final = (
    "shards", "tables", "epoch_ms", "checkpoint_every", "checkpoints_kept", "batch_rows", "lake",
)  # fmt: skip
SETTINGS: Final = tuple(
    dict.fromkeys((*COMMON_SETTINGS, *(name for flow in FLOWS.values() for name in flow.settings)))
)
#: Flags of ``run`` that are no settings of the flow itself.
RUN_FLAGS: Final = ("source", "sink", "processes", "recovery", "replace", "strict", "json")
#: Flags that mean the same wherever they stand.
COMMON_FLAGS: Final = ("lake", "dsn", "brokers")
#: The database's login that only reads, which ``--dsn`` of READING prefers: sql refuses others.
READER_DSN: Final = "reader_dsn"
READING: Final = ("sql", "feeds")
#: Variables that no flag has: secrets, and where services and tests find their files.
_OTHERS: Final = (
    *(f"KAFKA_{name.upper()}" for name in SECURITY_PARAMS),
    "KAFKA_PORT", "TIMESCALE_PORT", "PROMETHEUS_PORT", "TIMESCALE_PASSWORD", "SOUP_PASSWORD",
    "SERVICES", "DOCKER", "TEST_DATA",
)  # fmt: skip
#: Kubernetes puts these into every pod beside a service whose name begins with ours.
_OF_KUBERNETES: Final = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP)\w*$")


def variable(name: str) -> str:
    """The variable that sets a flag or setting."""
    return PREFIX + name.upper()


def check_variables(environment: Mapping[str, str]) -> None:
    """Refuse a MARKETFLOW_* variable that sets nothing. Raises UsageError with the nearest name."""
    names = [*SETTINGS, *RUN_FLAGS, *COMMON_FLAGS, READER_DSN, *_OTHERS]
    known = {variable(name) for name in names}
    for given, value in sorted(environment.items()):
        if not given.startswith(PREFIX) or given in known:
            continue
        if _OF_KUBERNETES.search(given) or (given.endswith("_PORT") and "://" in value):
            continue
        near = nearest(given, known)
        raise UsageError(f"{given} is set but sets nothing{near}; unset it")


def read_file(path: Path | None = None) -> dict[str, Any]:
    """The keys of ``path`` (./marketflow.toml). Raises UsageError for an unknown one."""
    path = path or Path(FILE)
    try:
        given = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    known = {*SETTINGS, *RUN_FLAGS, *COMMON_FLAGS, READER_DSN}
    for key in given:
        if key not in known:
            raise UsageError(f"{path}: no setting {key!r}{nearest(key, known)}; remove the line")
    return given
