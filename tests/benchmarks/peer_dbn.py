"""Databento's decoder: DBN market-by-order records to numpy columns. Argument: how many."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import databento
import numpy as np
from databento_dbn import Metadata, Schema, SType

_MBO = np.dtype(
    [
        ("length", "u1"), ("rtype", "u1"), ("publisher_id", "<u2"), ("instrument_id", "<u4"),
        ("ts_event", "<u8"), ("order_id", "<u8"), ("price", "<i8"), ("size", "<u4"),
        ("flags", "u1"), ("channel_id", "u1"), ("action", "S1"), ("side", "S1"),
        ("ts_recv", "<u8"), ("ts_in_delta", "<i4"), ("sequence", "<u4"),
    ]
)  # fmt: skip


def main() -> None:
    count = int(sys.argv[1])
    rows = np.zeros(count, _MBO)
    rows["length"], rows["rtype"], rows["publisher_id"] = _MBO.itemsize // 4, 0xA0, 2
    rows["ts_event"] = rows["ts_recv"] = 1_700_000_000_000_000_000 + np.arange(count)
    rows["order_id"], rows["sequence"] = np.arange(count), np.arange(count)
    rows["price"], rows["size"], rows["instrument_id"] = 10**11, 100, np.arange(count) % 100
    rows["action"], rows["side"] = b"A", b"B"
    # Its stubs take enumerations for texts.
    kinds: Any = {
        "stype_in": SType.RAW_SYMBOL,
        "stype_out": SType.INSTRUMENT_ID,
        "schema": Schema.MBO,
    }
    head = Metadata(
        dataset="XNAS.ITCH", start=0, symbols=[], partial=[], not_found=[], mappings=[], **kinds,
    ).encode()  # fmt: skip
    data = bytes(head) + rows.tobytes()
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        columns = databento.DBNStore.from_bytes(data).to_ndarray()
        rates.append(len(columns) / (time.perf_counter() - started))
        assert len(columns) == count
    print(json.dumps({"databento (DBN to numpy)": statistics.median(rates)}))


if __name__ == "__main__":
    main()
