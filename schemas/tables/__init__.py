"""Field tables, one module per subject. :data:`TABLES` has them all, by name.

Later records (orders, executions, positions ...) join here; nothing else needs to know. Imports
only :mod:`schemas.fields` and :mod:`schemas.codes`; every room may import it.
"""

from __future__ import annotations

from typing import Final

from marketflow.schemas.fields import Table
from marketflow.schemas.tables.market_data import MARKET_DATA

TABLES: Final[dict[str, Table]] = {table.name: table for table in MARKET_DATA}


def table(name: str) -> Table:
    """The table called ``name``; KeyError naming the known ones otherwise."""
    try:
        return TABLES[name]
    except KeyError:
        raise KeyError(f"no table {name!r}; known: {', '.join(TABLES)}") from None
