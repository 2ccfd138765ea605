"""bytewax's own KafkaSource, which the flow does not use. Arguments: brokers, topic, messages."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main


class _EnoughError(Exception):
    pass


class _Count(StatelessSinkPartition[Any]):
    def __init__(self, count: int) -> None:
        self._left = count
        self._started = 0.0
        self._counted = 0

    def write_batch(self, items: list[Any]) -> None:
        if not self._started:
            self._started = time.perf_counter()
        else:
            self._counted += len(items)
        self._left -= len(items)
        if self._left <= 0:
            rate = self._counted / (time.perf_counter() - self._started)
            print(json.dumps({"bytewax KafkaSource": rate}), flush=True)
            raise _EnoughError


class _Sink(DynamicSink[Any]):
    def __init__(self, count: int) -> None:
        self._count = count

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Count:
        return _Count(self._count)


def main() -> None:
    brokers, topic, count = sys.argv[1:]
    flow = Dataflow("peer")
    source: Any = KafkaSource(brokers.split(","), [topic], tail=False, batch_size=1000)
    op.output("count", op.input("kafka", flow, source), _Sink(int(count)))
    try:
        cli_main(flow)
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, _EnoughError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise


if __name__ == "__main__":
    main()
