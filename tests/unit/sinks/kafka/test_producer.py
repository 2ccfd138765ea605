"""What a broker does not know right after its start is asked again, and refused if it stays so."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.sinks.errors import SinkError
from marketflow.sinks.kafka import producer as kafka_link

#: Nobody is there: the questions are answered by the test.
ADDRESS = KafkaAddress("127.0.0.1:1", "md")


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    ],
)
def test_an_unknown_partition_is_asked_for_again(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = kafka_link.Link(ADDRESS, "w0", 300.0, 5)
    answers = [KafkaException(KafkaError(code))] * 3

    def ends() -> int:
        if answers:
            raise answers.pop()
        return 7

    assert link.ask("ends", ends) == 7
    monkeypatch.setattr(kafka_link, "_SETTLE_S", -1.0)
    answers.append(KafkaException(KafkaError(code)))
    with pytest.raises(SinkError, match="topic"):
        link.ask("ends", ends)


def test_a_refusal_is_told_at_once() -> None:
    link = kafka_link.Link(ADDRESS, "w0", 300.0, 5)

    def refused() -> int:
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    with pytest.raises(SinkError, match="needs Write"):
        link.ask("ends", refused)
