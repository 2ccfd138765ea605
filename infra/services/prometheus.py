"""Prometheus on loopback from Debian's package, with the project's scrape and rule files."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import ClassVar, Final

from marketflow.infra.services.base import Service
from marketflow.infra.services.debian import unpack

_SUITE: Final = "trixie"
_CONFIG: Final = Path(__file__).resolve().parents[1] / "prometheus.yml"


class Prometheus(Service):
    """Scrapes the metrics port of flows on this machine."""

    name: ClassVar[str] = "prometheus"
    default_port: ClassVar[int] = 19090

    @property
    def version(self) -> str:
        return f"{_SUITE} prometheus 1"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def install(self) -> None:
        unpack(self.files, _SUITE, "prometheus", lambda name: name == "prometheus")

    def _binary(self) -> Path:
        return self.files / "root/usr/bin/prometheus"

    def command(self) -> list[str]:
        self.data.mkdir(parents=True, exist_ok=True)
        return [
            str(self._binary()),
            f"--config.file={_CONFIG}",
            f"--storage.tsdb.path={self.data}",
            "--storage.tsdb.retention.size=512MB",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
