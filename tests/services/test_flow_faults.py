"""What goes wrong around a run: it says what and how to mend it, waits where that helps, and after
the repair the stores are as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from marketflow.infra.services.timescale import Timescale
from tests.support.disks import remount, small_disk
from tests.support.lakes import assert_same_lakes
from tests.support.services.dsn import replace_password
from tests.support.services.outputs import Outputs, assert_same_outputs, drop_database, new_outputs
from tests.support.services.recorded import record, venues
from tests.support.services.running import Flow, Servers
from tests.support.services.topics import Cluster

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]
_VENUES = ("bitget", "okx")
_ENVIRONMENT = {"MARKETFLOW_EPOCH_MS": "100", "MARKETFLOW_BATCH_ROWS": "300"}


@pytest.fixture(scope="module")
def flow(kafka: Cluster, data: Path) -> Flow:
    """A run over a few captures, without sinks yet."""
    sources = []
    for capture in venues(data):
        if capture.venue in _VENUES:
            topic = kafka.topic(1)
            record(kafka, topic, capture.source)
            sources.append(f"kafka://{kafka.brokers}/{topic}?venue={capture.venue}&to=latest")
    return Flow(sources, [], Path(), 1, _ENVIRONMENT)


@pytest.fixture(scope="module")
def calm(
    flow: Flow, kafka: Cluster, timescale: Timescale, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outputs]:
    """What it leaves when nothing happens."""
    folder = tmp_path_factory.mktemp("calm")
    outputs = new_outputs(folder, kafka, timescale)
    undisturbed = replace(flow, sinks=outputs.sinks(kafka), recovery=folder / "recovery")
    undisturbed.start()
    undisturbed.result()
    yield outputs
    drop_database(timescale, outputs)


@pytest.fixture
def outputs(kafka: Cluster, timescale: Timescale, tmp_path: Path) -> Iterator[Outputs]:
    """Empty stores."""
    timescale.up(print)
    outputs = new_outputs(tmp_path, kafka, timescale)
    yield outputs
    timescale.up(print)
    drop_database(timescale, outputs)


def test_a_full_disk(flow: Flow, calm: Outputs, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        lake = disk / "lake"
        run = replace(flow, sinks=[f"parquet:{lake}"], recovery=tmp_path / "recovery")
        run.start()
        code, said = run.refused()
        assert code == 1
        assert "No space left on device; mend that (free space" in said
        assert "start the same command again" in said
        assert "Traceback" not in said
        remount(disk, "size=64m")
        run.start()
        run.result()
        assert_same_lakes(calm.lake, lake)


def test_both_servers_are_away_at_the_start(
    flow: Flow, calm: Outputs, outputs: Outputs, kafka: Cluster, timescale: Timescale
) -> None:
    servers = Servers(kafka, timescale)
    kafka.service.down()
    timescale.down()
    run = replace(
        flow,
        sources=[f"{source}&patience_s=300" for source in flow.sources],
        sinks=outputs.sinks(kafka),
        recovery=outputs.lake.with_name("recovery"),
    )
    run.start()
    try:
        run.wait_for(f"waiting for kafka at {kafka.brokers}")
        kafka.restart()
        run.wait_for("waiting for marketflow@127.0.0.1")
    finally:
        servers.up()
    run.result()
    assert "Traceback" not in run.said()
    assert_same_outputs(kafka, calm, outputs)


def test_the_database_is_read_only_for_a_while(
    flow: Flow, calm: Outputs, outputs: Outputs, kafka: Cluster
) -> None:
    name = outputs.dsn.rpartition("/")[2]
    with psycopg.connect(outputs.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    run = replace(flow, sinks=outputs.sinks(kafka), recovery=outputs.lake.with_name("recovery"))
    run.start()
    run.wait_for("the database is read-only; gives up in")
    with psycopg.connect(outputs.dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    run.result()
    assert_same_outputs(kafka, calm, outputs)


def test_wrong_passwords(flow: Flow, outputs: Outputs, kafka: Cluster) -> None:
    """Refused at once, without showing them; nothing was begun that the right ones do not end."""
    sasl = f"127.0.0.1:{kafka.service.sasl_port}"
    query = "security=sasl_plaintext&username=marketflow&password=sesame"
    source = flow.sources[0].replace(kafka.brokers, sasl) + f"&{query}"
    database = f"timescale:{replace_password(outputs.dsn, 'sesame')}"
    for sources, sink, why in (
        ([source], "null:", "Authentication failed"),
        (flow.sources, f"kafka://{sasl}/{outputs.prefix}?{query}", "Authentication failed"),
        (flow.sources, database, "password is wrong"),
    ):
        run = replace(
            flow, sources=sources, sinks=[sink], recovery=outputs.lake.with_name(f"r{len(sink)}")
        )
        run.start()
        code, said = run.refused()
        assert code == 2, said
        assert why in said
        assert "sesame" not in said
        assert "Traceback" not in said


def test_topics_that_are_deleted(flow: Flow, outputs: Outputs, kafka: Cluster) -> None:
    """The one that is read, and one that is written, in the middle of it."""
    followed = kafka.topic(1)
    run = replace(
        flow,
        sources=[f"kafka://{kafka.brokers}/{followed}?venue=okx&group={followed}"],
        sinks=[f"parquet:{outputs.lake}"],
        recovery=outputs.lake.with_name("followed"),
    )
    kafka.send(followed, [b"{"] * 5)
    run.start()
    while kafka.told(followed, followed, 1) < 5:
        assert run.running(), run.said()
    kafka.delete(followed)
    code, said = run.refused()
    assert code == 1
    assert f"topic {followed} was deleted while it was read; what was read is safe" in said
    kafka.delete(f"{outputs.prefix}.quotes")
    run = replace(
        flow,
        sinks=[f"kafka://{kafka.brokers}/{outputs.prefix}?patience_s=20"],
        recovery=outputs.lake.with_name("written"),
    )
    run.start()
    code, said = run.refused()
    assert code == 2
    assert f"has no topic {outputs.prefix}.quotes: create it with marketflow topics" in said
    kafka.topic(2, f"{outputs.prefix}.quotes")
    run.start()
    assert run.result()["tables"]["quotes"] == len(kafka.rows(outputs.prefix, "quotes"))
