"""quixstreams: messages of a topic counted. Arguments: brokers, topic, messages."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid

from quixstreams import Application


def main() -> None:
    brokers, topic, count = sys.argv[1:]
    folder = tempfile.TemporaryDirectory()  # else it leaves a folder where it was started
    app = Application(
        broker_address=brokers, consumer_group=uuid.uuid4().hex, auto_offset_reset="earliest",
        loglevel="ERROR", state_dir=folder.name,
    )  # fmt: skip
    seen, started, wanted = 0, 0.0, int(count)

    def one(value: bytes) -> None:
        nonlocal seen, started
        if not seen:
            started = time.perf_counter()
        seen += 1
        if seen == wanted:
            rate = (seen - 1) / (time.perf_counter() - started)
            print(json.dumps({"quixstreams": rate}), flush=True)
            app.stop()

    app.dataframe(app.topic(topic, value_deserializer="bytes")).update(one)
    app.run()
    folder.cleanup()


if __name__ == "__main__":
    main()
