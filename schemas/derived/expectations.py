"""Base expectations of every table, as plain values: what holds for any correct row.

Each is ``{"expectation_type": ..., "kwargs": {...}}`` in the words of Great Expectations; checks
that need thresholds or other tables belong to the quality flow, not here.
"""

from __future__ import annotations

from typing import Any

from marketflow.schemas.codes import RowFlag, words
from marketflow.schemas.fields import Field, Kind, Table

Expectation = dict[str, Any]


def _expect(kind: str, **kwargs: Any) -> Expectation:
    return {"expectation_type": f"expect_{kind}", "kwargs": kwargs}


def _of_field(field: Field) -> list[Expectation]:
    found = []
    if not field.nullable:
        found.append(_expect("column_values_to_not_be_null", column=field.name))
    if field.codes is not None:
        found.append(
            _expect(
                "column_values_to_be_in_set", column=field.name, value_set=list(words(field.codes))
            )
        )
    if field.kind is Kind.UINT8:
        every_flag = sum(RowFlag)
        found.append(
            _expect(
                "column_values_to_be_between",
                column=field.name,
                min_value=0,
                max_value=every_flag,
            )
        )
    if field.positive or field.non_negative:
        found.append(
            _expect(
                "column_values_to_be_between",
                column=field.name,
                min_value=0,
                strict_min=field.positive,
            )
        )
    return found


def expectations(table: Table) -> list[Expectation]:
    """Of the table's columns, of each field, and of the rows' identity."""
    return [
        _expect("table_columns_to_match_ordered_list", column_list=list(table.names)),
        *(expectation for field in table.fields for expectation in _of_field(field)),
        _expect("compound_columns_to_be_unique", column_list=["shard", "row_sequence"]),
    ]
