"""Database URLs for tests."""

from __future__ import annotations


def replace_password(dsn: str, password: str) -> str:
    head, _, tail = dsn.rpartition("@")
    return f"{head.rpartition(':')[0]}:{password}@{tail}"
