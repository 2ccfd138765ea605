"""librdkafka's consumer by its C interface: messages to columns at a fifth of the usual cost.

The library is the one inside the confluent-kafka wheel, so that there is one version of it in the
process. Only a consumer with partitions assigned by us is wrapped here, and of it only fetching:
whatever is rare (metadata, watermarks, commits) goes through confluent-kafka.

A :class:`Consumer` is used by one thread.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import confluent_kafka
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.kernels import messages as kafka_kernels
from marketflow.sources.kafka.kernels.messages import MESSAGE, Columns, Slots

Place = tuple[str, int]
_CONSUMER: Final = 1
_MAX_SLOTS: Final = 1 << 14
_ERROR_CB: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
)
_P, _I, _S, _N = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t


class _TopicPartition(ctypes.Structure):
    """Head of ``rd_kafka_topic_partition_t``: what follows the offset is not ours to set."""

    _fields_ = (("topic", _S), ("partition", ctypes.c_int32), ("offset", ctypes.c_int64))


#: (name, result, arguments) of what is called; rdkafka.h says the rest.
_FUNCTIONS: Final[tuple[tuple[str, Any, tuple[Any, ...]], ...]] = (
    ("conf_new", _P, ()),
    ("conf_set", _I, (_P, _S, _S, _P, _N)),
    ("conf_set_error_cb", None, (_P, _ERROR_CB)),
    ("new", _P, (_I, _P, _P, _N)),
    ("poll_set_consumer", _I, (_P,)),
    ("queue_get_consumer", _P, (_P,)),
    ("queue_destroy", None, (_P,)),
    ("topic_partition_list_new", _P, (_I,)),
    ("topic_partition_list_add", ctypes.POINTER(_TopicPartition), (_P, _S, ctypes.c_int32)),
    ("topic_partition_list_destroy", None, (_P,)),
    ("incremental_assign", _P, (_P, _P)),
    ("incremental_unassign", _P, (_P, _P)),
    ("error_string", _S, (_P,)),
    ("error_destroy", None, (_P,)),
    ("consume_batch_queue", ctypes.c_ssize_t, (_P, _I, _P, _N)),
    ("message_headers", _I, (_P, _P)),
    ("header_get_all", _I, (_P, _N, _P, _P, _P)),
    ("message_destroy", None, (_P,)),
    ("topic_name", _S, (_P,)),
    ("err2str", _S, (_I,)),
    ("consumer_close", _I, (_P,)),
    ("destroy", None, (_P,)),
)


@cache
def _library() -> Any:
    """The loaded library; SourceError where the wheel has none."""
    package = Path(confluent_kafka.__file__).parent
    folders = (package.with_name("confluent_kafka.libs"), package / ".dylibs")
    found = [p for folder in folders for p in sorted(folder.glob("librdkafka*"))]
    if not found or sys.maxsize < 2**32:
        raise SourceError(
            "confluent-kafka is installed without its own librdkafka: install the wheel of PyPI "
            "(64-bit Linux or macOS), as requirements.lock does"
        )
    library = ctypes.CDLL(str(found[0]))
    for name, result, arguments in _FUNCTIONS:
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    kafka_kernels.bind(str(found[0]))
    return library


class Event(NamedTuple):
    """What the library tells of a partition besides messages: an error code, and where."""

    topic: str
    partition: int
    code: int
    text: str
    offset: int


class Part(NamedTuple):
    """Messages of one partition, in its order: frames (schemas.messages.frames) and Kafka
    timestamps."""

    frames: pa.RecordBatch
    ts_ms: NDArray[np.int64]


class Fetched(NamedTuple):
    """What one call brought."""

    parts: dict[Place, Part]
    events: list[Event]
    bytes: int


class Consumer:
    """A consumer of partitions that are named by us.

    ``on_error(code, reason)`` is called, during :meth:`fetch`, for what is wrong with the client
    as a whole (no broker reachable, authentication). SourceError for a setting that is refused.
    """

    def __init__(
        self,
        config: Mapping[str, str | int],
        on_error: Callable[[int, str], None],
        max_rows: int,
    ) -> None:
        self._lib = _library()
        self._max_rows = max_rows
        # Kept: the library calls it as long as the client lives.
        self._callback = _ERROR_CB(
            lambda _, code, reason, __: on_error(code, (reason or b"").decode("utf-8", "replace"))
        )
        self._client = self._open(config)
        self._lib.rd_kafka_poll_set_consumer(self._client)
        self._queue = self._lib.rd_kafka_queue_get_consumer(self._client)
        self._pointers = np.zeros(max_rows, np.uint64)
        self._messages = np.zeros(max_rows, MESSAGE)
        self._slot_of = np.zeros(max_rows, np.int32)
        self._special = np.zeros(2 * max_rows, np.int32)
        self._scratch = np.zeros(8, np.uint64)
        self._slots = Slots(
            np.zeros(_MAX_SLOTS, np.uint64),
            np.zeros(_MAX_SLOTS, np.int32),
            *(np.zeros(_MAX_SLOTS, np.int64) for _ in range(3)),
        )
        self._places: list[Place] = []

    def _open(self, config: Mapping[str, str | int]) -> Any:
        lib = self._lib
        error = ctypes.create_string_buffer(512)
        conf = lib.rd_kafka_conf_new()
        for name, value in config.items():
            if lib.rd_kafka_conf_set(conf, name.encode(), str(value).encode(), error, len(error)):
                raise SourceError(f"kafka: {error.value.decode()}")
        lib.rd_kafka_conf_set_error_cb(conf, self._callback)
        client = lib.rd_kafka_new(_CONSUMER, conf, error, len(error))
        if not client:
            raise SourceError(f"kafka: {error.value.decode()}")
        return client

    def add(self, places: Sequence[tuple[str, int, int]]) -> None:
        """Read these (topic, partition, offset) too."""
        self._assign("incremental_assign", places)

    def remove(self, place: Place) -> None:
        """Read this partition no more; what was fetched of it may still come."""
        self._assign("incremental_unassign", [(*place, 0)])

    def _assign(self, how: str, places: Sequence[tuple[str, int, int]]) -> None:
        lib = self._lib
        listed = lib.rd_kafka_topic_partition_list_new(len(places))
        for topic, partition, offset in places:
            entry = lib.rd_kafka_topic_partition_list_add(listed, topic.encode(), partition)
            entry.contents.offset = offset
        error = getattr(lib, f"rd_kafka_{how}")(self._client, listed)
        lib.rd_kafka_topic_partition_list_destroy(listed)
        if error:
            text = lib.rd_kafka_error_string(error).decode()
            lib.rd_kafka_error_destroy(error)
            raise AssertionError(f"{how} {places}: {text}")

    def fetch(self, max_rows: int, timeout_ms: int) -> Fetched:
        """What is there, up to ``max_rows`` messages; waits until something is, or the timeout."""
        count = self._consume(min(max_rows, self._max_rows), timeout_ms)
        if count == 0:
            return Fetched({}, [], 0)
        self._survey(count)
        known = len(self._places)
        rows = int(self._slots.rows[:known].sum())
        size = int(self._slots.bytes[:known].sum())
        columns = Columns(
            np.empty(rows, np.int64),
            np.empty(rows, np.int64),
            np.empty(rows, np.int64),
            np.empty(size, np.uint8),
            np.empty(rows + 1, np.int64),
            np.empty(int(self._slots.key_bytes[:known].sum()), np.uint8),
            np.empty(rows + 1, np.int32),
            self._special,
        )
        special = kafka_kernels.unpack(
            self._pointers, count, self._messages, self._slot_of, self._slots, known, columns,
            kafka_kernels.NAMES, self._scratch,
        )  # fmt: skip
        events = self._events(count) if rows < count else []
        frames = self._frames(columns, special)
        parts = {}
        first = 0
        for slot, place in enumerate(self._places):
            last = int(self._slots.rows[slot])
            if last > first:
                part = Part(frames.slice(first, last - first), columns.ts_ms[first:last])
                parts[place] = part
            first = last
        return Fetched(parts, events, size)

    def _consume(self, size: int, timeout_ms: int) -> int:
        """Pointers to the messages that are there, and their number."""
        consume, place = self._lib.rd_kafka_consume_batch_queue, self._pointers.ctypes.data
        count = 0
        if timeout_ms:
            # Asked for more, the library goes on waiting for them when one is there.
            count = max(0, consume(self._queue, timeout_ms, place, 1))
            if not count:
                return 0
        if size > count:
            place += count * self._pointers.itemsize
            count += max(0, consume(self._queue, 0, place, size - count))
        return count

    def _survey(self, count: int) -> None:
        """Find the slot of every message, giving new partitions theirs."""
        while True:
            known = len(self._places)
            stopped = kafka_kernels.survey(
                self._pointers, count, self._messages, self._slot_of, self._slots, known
            )
            if stopped == count:
                return
            message = self._messages[stopped]
            assert known < _MAX_SLOTS, "more partitions than any cluster of ours has"
            self._slots.topics[known] = message["topic"]
            self._slots.partitions[known] = message["partition"]
            name = self._lib.rd_kafka_topic_name(int(message["topic"])).decode()
            self._places.append((name, int(message["partition"])))

    def _events(self, count: int) -> list[Event]:
        """The messages that are none; gives them back."""
        found = []
        for i in np.flatnonzero(self._slot_of[:count] < 0).tolist():
            message = self._messages[i]
            code = int(message["error"])
            topic = message["topic"]
            name = self._lib.rd_kafka_topic_name(int(topic)).decode() if topic else ""
            text = self._lib.rd_kafka_err2str(code).decode()
            if message["payload"]:
                said = ctypes.string_at(int(message["payload"]), int(message["payload_size"]))
                text = said.rstrip(b"\0").decode("utf-8", "replace") or text
            found.append(Event(name, int(message["partition"]), code, text, int(message["offset"])))
            self._lib.rd_kafka_message_destroy(int(self._pointers[i]))
        return found

    def _frames(self, columns: Columns, special: int) -> pa.RecordBatch:
        rows = len(columns.offsets)
        kinds = np.full(rows, FrameKind.DATA, np.int8)
        notes: list[tuple[int, str]] = []
        for row, index in columns.special[: 2 * special].reshape(-1, 2).tolist():
            pointer = int(self._pointers[index])
            headers = dict(self._headers(pointer))
            self._lib.rd_kafka_message_destroy(pointer)
            note = headers.get(wire.NOTE)
            if note is not None:
                notes.append((row, note.decode("utf-8", "replace")))
            if wire.KIND in headers:
                word = headers[wire.KIND].decode("utf-8", "replace")
                kind = wire.KINDS.get(word)
                if kind is None or kind is FrameKind.END:
                    notes.append((row, f"header kind is {word[:40]!r}, no kind of a frame"))
                    kind = FrameKind.BROKEN
                kinds[row] = kind
        return framing.batch(
            columns.offsets,
            framing.payloads(pa.py_buffer(columns.payload), columns.bounds),
            ts_recv=columns.ts_recv,
            kinds=kinds,
            connections=_connections(columns),
            notes=framing.noted(rows, notes),
        )

    def _headers(self, pointer: int) -> list[tuple[str, bytes]]:
        lib = self._lib
        headers, name, value, size = _P(), _S(), _P(), _N()
        lib.rd_kafka_message_headers(pointer, ctypes.byref(headers))
        found: list[tuple[str, bytes]] = []
        while not lib.rd_kafka_header_get_all(
            headers, len(found), ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)
        ):
            data = ctypes.string_at(value.value, size.value) if value.value else b""
            found.append(((name.value or b"").decode("utf-8", "replace"), data))
        return found

    def close(self) -> None:
        """Let go of the connections; safe to call twice."""
        if self._client is not None:
            self._lib.rd_kafka_queue_destroy(self._queue)
            self._lib.rd_kafka_consumer_close(self._client)
            self._lib.rd_kafka_destroy(self._client)
            self._client = None


def _connections(columns: Columns) -> pa.DictionaryArray:
    rows = len(columns.offsets)
    keys = pa.StringArray.from_buffers(
        rows, pa.py_buffer(columns.key_bounds), pa.py_buffer(columns.keys)
    )
    encoded = keys.dictionary_encode()
    try:
        encoded.dictionary.validate(full=True)
    except pa.ArrowInvalid:
        # A foreign key that is no text still tells connections apart.
        words = [
            word.decode("utf-8", "backslashreplace")
            for word in encoded.dictionary.cast(pa.binary()).to_pylist()
        ]
        encoded = pa.DictionaryArray.from_arrays(encoded.indices, pa.array(words, pa.string()))
    return encoded
