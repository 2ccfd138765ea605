"""Texts without their secrets: what may be printed, logged or written to a file."""

from __future__ import annotations

import re
from typing import Final

from marketflow.schemas import kafka_address

_URL_SECRET: Final = re.compile(r"(//[^:/?#@\s]*):.*@")
_NAMED_SECRET: Final = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]*)")


def redacted(text: str) -> str:
    """A sink URL, or any text with the address of a database in it, without passwords."""
    if text.startswith("kafka:"):
        return kafka_address.redacted(text)
    return _NAMED_SECRET.sub(r"\1***", _URL_SECRET.sub(r"\1:***@", text))
