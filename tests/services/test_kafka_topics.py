"""``marketflow topics`` on a real broker: creates what is missing, shows what differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from marketflow.flows.commands.topics import run_topics
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.schemas.tables import TABLES
from tests.support.patience import PATIENCE_S
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services


def test_created_once_then_compared(kafka: Cluster) -> None:
    name = "topics-once"
    outcomes = run_topics(kafka.brokers, name, 2, ["kraken"], "arrow", "")
    assert {outcome["state"] for outcome in outcomes} == {"created"}
    names = {outcome["name"] for outcome in outcomes}
    tables = {f"{name}.{table}" for table in TABLES}
    assert names == {"raw.kraken", f"{name}.resync_requests", f"{name}.feeds"} | tables
    known = kafka.admin.list_topics(timeout=PATIENCE_S).topics
    assert {len(known[topic].partitions) for topic in tables} == {2}
    again = run_topics(kafka.brokers, name, 2, ["kraken"], "arrow", "")
    assert {outcome["state"] for outcome in again} == {"same"}
    more = run_topics(kafka.brokers, name, 3, ["kraken"], "json", "")
    states = {outcome["name"]: outcome["state"] for outcome in more}
    assert states.pop(f"{name}.resync_requests") == "same"
    assert states.pop(f"{name}.feeds") == "same"
    assert set(states.values()) == {"differs"}
    texts = {outcome["name"]: outcome["differences"] for outcome in more}
    assert "2 partitions, declared 3" in texts[f"{name}.trades"][0]
    assert "cleanup.policy is delete, declared compact: kafka-configs" in " ".join(
        texts[f"{name}.instruments"]
    )
    # Nothing was changed.
    assert len(kafka.admin.list_topics(timeout=PATIENCE_S).topics[f"{name}.trades"].partitions) == 2


def test_the_command(kafka: Cluster) -> None:
    sasl = f"127.0.0.1:{kafka.service.sasl_port}"
    command = [
        sys.executable, "-m", "marketflow", "topics", "--brokers", sasl, "--prefix", "topics-cli",
        "--partitions", "1", "--security", "sasl_plaintext", "--json",
    ]  # fmt: skip
    env = {**os.environ, "MARKETFLOW_KAFKA_USERNAME": "marketflow"}
    env["MARKETFLOW_KAFKA_PASSWORD"] = kafka.service.sasl_password
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert {outcome["state"] for outcome in json.loads(done.stdout)} == {"created"}
    wrong = {**env, "MARKETFLOW_KAFKA_PASSWORD": "hunter2"}
    done = subprocess.run(command, env=wrong, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "Authentication failed" in done.stderr
    assert "hunter2" not in done.stderr


def test_wrong_use(kafka: Cluster) -> None:
    with pytest.raises(UsageError, match="venue=nyse is none we can decode"):
        run_topics(kafka.brokers, "x", 1, ["nyse"], "arrow", "")
    with pytest.raises(UsageError, match="--format xml is none of"):
        run_topics(kafka.brokers, "x", 1, [], "xml", "")
    with pytest.raises(UsageError, match="no HOST:PORT"):
        run_topics("somewhere", "x", 1, [], "arrow", "")
    with pytest.raises(RunFailed, match="Connection refused"):
        run_topics("127.0.0.1:9", "x", 1, [], "arrow", "")
