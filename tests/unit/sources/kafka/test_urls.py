"""Kafka URLs: what they mean, what is refused with which fix, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketflow.schemas.kafka_address import SECURITY_PARAMS
from marketflow.sinks.kafka.config import KafkaConfig as KafkaSinkConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.config import Bound, KafkaConfig, topic_of
from marketflow.sources.registry import parse_source


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECURITY_PARAMS:
        monkeypatch.delenv(f"MARKETFLOW_KAFKA_{name.upper()}", raising=False)


def feed(query: str = "", topic: str = "raw.binance") -> KafkaConfig:
    return topic_of(parse_source(f"kafka://b1:9092,b2:9093/{topic}{query}"))


def test_topics_say_by_their_name_what_they_hold() -> None:
    assert feed().venue == "BINANCE"
    assert feed(topic="raw.binance_usdm").venue == "BINANCE_USDM"
    assert feed(topic="md.trades").table == "trades"
    assert feed(topic="a.b.quotes").table == "quotes"
    assert feed("?venue=kraken", "anything").venue == "KRAKEN"
    assert feed("?table=funding", "anything").table == "funding"
    assert feed().address.brokers == "b1:9092,b2:9093"


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("earliest", Bound("earliest")),
        ("latest", Bound("latest")),
        ("17", Bound(offset=17)),
        ("0:5,3:7", Bound(offsets=((0, 5), (3, 7)))),
        ("1970-01-01T00:00:01Z", Bound(time_ms=1000)),
        ("1970-01-01T01:00:01.0005+01:00", Bound(time_ms=1001)),
        ("1970-01-02", Bound(time_ms=86_400_000)),
    ],
)
def test_bounds(text: str, bound: Bound) -> None:
    assert feed(f"?from={text}").start == bound
    if text != "earliest":
        assert feed(f"?to={text}").end == bound


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("kafka:b:1/t", "write kafka://HOST:PORT"),
        ("kafka://b/raw.binance", "no HOST:PORT"),
        ("kafka://b:99999/raw.binance", "no HOST:PORT"),
        ("kafka://b:1", "names no topic"),
        ("kafka://b:1/a b", "names no topic"),
        ("kafka://b:1/prices", "Add venue=NAME"),
        ("kafka://b:1/md.bars", "cannot be an input"),
        ("kafka://b:1/x?venue=a&table=trades", "give one"),
        ("kafka://b:1/raw.binance?from=yesterday", "from=yesterday is not one of earliest, latest"),
        ("kafka://b:1/raw.binance?from=0:1,0:2", "names a partition twice"),
        ("kafka://b:1/raw.binance?to=earliest", "is no end"),
        ("kafka://b:1/raw.binance?form=earliest", "did you mean from"),
        ("kafka://b:1/raw.binance?patience_s=-1", "not a number of seconds"),
        ("kafka://b:1/raw.binance?username=u&password=p", "security=sasl_ssl"),
        ("kafka://b:1/raw.binance?security=sasl_ssl", "MARKETFLOW_KAFKA_PASSWORD"),
        ("kafka://b:1/raw.binance?security=tls", "none of plaintext"),
        ("kafka://b:1/raw.binance?security=ssl&mechanism=GSSAPI", "none of PLAIN"),
        ("kafka://b:1/raw.binance?password_file=/nowhere/at/all", "password_file /nowhere"),
    ],
)
def test_wrong_sources_name_the_fix(url: str, fix: str) -> None:
    with pytest.raises(SourceError, match=fix.replace("?", r"\?")):
        parse_source(url)


def test_secrets_are_used_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = topic_of(
        parse_source(
            "kafka://me:p%40ss@b:1/raw.binance?security=sasl_ssl&key_password=hush&ca=/etc/ca.pem"
        )
    )
    security = spec.address.security
    assert (security.username, security.password, security.key_password) == ("me", "p@ss", "hush")
    assert security.config()["ssl.ca.location"] == "/etc/ca.pem"
    for secret in ("p%40ss", "p@ss", "hush"):
        assert secret not in repr(spec.of_partition(3).text) + repr(spec)
    secret_file = tmp_path / "password"
    secret_file.write_text("from a file\n")
    monkeypatch.setenv("MARKETFLOW_KAFKA_USERNAME", "env")
    monkeypatch.setenv("MARKETFLOW_KAFKA_PASSWORD_FILE", str(secret_file))
    monkeypatch.setenv("MARKETFLOW_KAFKA_SECURITY", "sasl_plaintext")
    for found in (feed().address, KafkaSinkConfig.parse("kafka://b:1/md").address):
        assert found.config() == {
            "bootstrap.servers": found.brokers,
            "socket.nagle.disable": "true",
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "env",
            "sasl.password": "from a file",
        }
    assert (
        KafkaSinkConfig.parse("kafka://b:1/md?security=plaintext").address.security.password == ""
    )
