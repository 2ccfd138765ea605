"""Which names of venues and symbols every store can hold, and read back as they are.

A symbol is a column of an index (PostgreSQL takes 2,704 bytes for a row of one) and of every key; a
venue is the name of a folder, escaped (255 bytes is the most that file systems take).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

#: Bytes of UTF-8 that a venue or symbol may have.
MAX_NAME_BYTES: Final = 255
MAX_FOLDER_BYTES: Final = 255
#: Names that mean something else to readers: this one is read back as NULL.
RESERVED: Final = frozenset({"__HIVE_DEFAULT_PARTITION__"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def venue_folder(venue: str) -> str:
    """The folder of a venue below its date in a lake."""
    return f"venue={quote(venue, safe='')}"


def name_fault(what: str, name: str) -> str | None:
    """Why ``name`` cannot be the name of a ``what`` (venue or symbol); None where it can."""
    if not name.strip():
        return f"{what} is empty"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"{what} is no text that UTF-8 can hold"
    if size > MAX_NAME_BYTES:
        return f"{what} has {size} bytes, more than {MAX_NAME_BYTES}"
    if _CONTROL.search(name):
        return f"{what} has control characters"
    if name in RESERVED:
        return f"{what} {name} is reserved"
    if what == "venue" and len(folder := venue_folder(name)) > MAX_FOLDER_BYTES:
        return f"venue makes a folder name of {len(folder)} bytes, more than {MAX_FOLDER_BYTES}"
    return None
