"""The record of all table versions ever used, and the command that adds to it.

    python -m tests.contract.schema_history

A version on record never changes: its data is on disks and in topics. The command adds new
versions and appended codes, and refuses everything else.
"""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from pathlib import Path
from typing import Any

from marketflow.schemas import codes
from marketflow.schemas.codes import words
from marketflow.schemas.fields import Kind, Table
from marketflow.schemas.tables import TABLES

RECORD = Path(__file__).with_name("schema_history.json")

_NULL = {True: "nullable", False: "required"}


def fields_of(table: Table) -> list[str]:
    """What of a table must not change within a version, a line per field."""
    return [
        " ".join((f.name, f.kind.value, f.codes.__name__ if f.codes else "-", _NULL[f.nullable]))
        for f in table.fields
    ]


def coded() -> dict[str, list[str]]:
    """Words of every enum whose values are gapless codes."""
    return {
        name: list(words(kind))
        for name, kind in vars(codes).items()
        if isinstance(kind, type) and issubclass(kind, IntEnum) and kind is not IntEnum
        if not name.endswith("Flag")
    }


def differences(
    record: dict[str, Any], tables: dict[str, Table], words_by_enum: dict[str, list[str]]
) -> tuple[list[str], list[str]]:
    """(what breaks the rules of evolution, what is new and only needs to be recorded)."""
    broken, new = [], []
    for name, table in tables.items():
        versions = record["tables"].get(name, {})
        fields, recorded = fields_of(table), versions.get(str(table.version))
        if recorded is None:
            new.append(f"{name} version {table.version}")
            if versions:
                broken += _unlike(name, versions[max(versions, key=int)], fields)
        elif recorded != fields:
            broken.append(f"{name} changed without a new version: raise it in schemas/tables.py")
    for name, known in words_by_enum.items():
        recorded = record["codes"].get(name, [])
        if known[: len(recorded)] != recorded:
            broken.append(f"{name}: recorded codes may only be appended to")
        elif known != recorded:
            new.append(f"codes of {name}")
    gone = {*record["tables"], *record["codes"]} - {*tables, *words_by_enum}
    return broken + [f"{name} is gone, but its data is not" for name in sorted(gone)], new


def _unlike(name: str, old: list[str], fields: list[str]) -> list[str]:
    kept = [_widened(was, now) for was, now in zip(old, fields, strict=False)]
    if len(fields) < len(old) or not all(kept):
        return [f"{name}: a new version may only append fields to the one before, or let be null"]
    return [
        f"{name}: the appended field must be nullable: {field}"
        for field in fields[len(old) :]
        if not field.endswith(_NULL[True])
    ]


def _widened(was: str, now: str) -> bool:
    """Whether a field is as it was, may be null now or is a wider integer: all data on record can
    still be read."""
    was = was.replace(" int16 ", f" {Kind.SHARD.value} ")
    return now in (was, was.removesuffix(_NULL[False]) + _NULL[True])


def main() -> int:
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"tables": {}, "codes": {}}
    broken, new = differences(record, TABLES, coded())
    if broken:
        print("\n".join(broken), file=sys.stderr)
        return 1
    for name, table in TABLES.items():
        record["tables"].setdefault(name, {})[str(table.version)] = fields_of(table)
    record["codes"] = coded()
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"recorded: {', '.join(new) or 'nothing new'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
