"""Apache Kafka, one KRaft node on loopback, from its published jars (needs Java 17 and Maven)."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar, Final

from marketflow.infra.services.base import Service, port_open, program, run_tool

KAFKA_VERSION: Final = "4.3.1"
LOG4J_VERSION: Final = "2.25.4"
_CLUSTER_ID: Final = "bWFya2V0Zmxvd2xvY2FsMQ"

_POM: Final = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>marketflow</groupId><artifactId>local-kafka</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY: Final = (
    "<dependency><groupId>{0}</groupId><artifactId>{1}</artifactId>"
    "<version>{2}</version></dependency>"
)
# log4j is not in Kafka's own POM, which brings slf4j 1.7: hence this binding and no newer one.
_JARS: Final = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-api", LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-core", LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
)

# retention.ms=-1: replayed history carries old timestamps and would be deleted at once, so bytes
# are the bound. Short session timeouts: after a kill the controller waits for them.
_PROPERTIES: Final = """process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{sasl_listener}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{sasl_advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
log.dirs={logs}
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
log.retention.ms=-1
log.retention.bytes={retention_bytes}
log.retention.check.interval.ms=5000
log.cleaner.dedupe.buffer.size=16777216
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
"""
_SASL: Final = (
    "listener.name.sasl.plain.sasl.jaas.config="
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'user_marketflow="{password}";\n'
)
_LOG4J: Final = """<Configuration status="warn"><Appenders><Console name="out">
<PatternLayout pattern="%d{ISO8601} %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""


class Kafka(Service):
    """Bootstrap address ``url``; SASL/PLAIN is served on ``sasl_port`` too."""

    name: ClassVar[str] = "kafka"
    default_port: ClassVar[int] = 19092
    retention_bytes: ClassVar[int] = 8 * 10**9
    sasl_password: ClassVar[str] = "marketflow"  # loopback only, a local throw-away broker

    @property
    def version(self) -> str:
        return KAFKA_VERSION

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def sasl_port(self) -> int:
        return self.port + 2

    def install(self) -> None:
        maven = program("mvn", "apt-get install maven")
        program("java", "apt-get install openjdk-17-jre-headless")
        dependencies = "".join(_DEPENDENCY.format(*jar) for jar in _JARS)
        (self.files / "pom.xml").write_text(_POM.format(dependencies=dependencies))
        run_tool(
            [maven, "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"],
            self.files,
        )

    def _java(self, main: str, *arguments: str) -> list[str]:
        java = program("java", "apt-get install openjdk-17-jre-headless")
        return [
            java, "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=128m",
            f"-Dlog4j.configurationFile={self.files / 'log4j2.xml'}",
            "-cp", f"{self.files / 'libs'}/*", main, *arguments,
        ]  # fmt: skip

    def command(self) -> list[str]:
        (self.files / "log4j2.xml").write_text(_LOG4J)
        properties = self.folder / "server.properties"
        properties.write_text(
            _PROPERTIES.format(
                port=self.port,
                controller_port=self.port + 1,
                sasl_listener=f",SASL://127.0.0.1:{self.sasl_port}",
                sasl_advertised=f",SASL://127.0.0.1:{self.sasl_port}",
                logs=self.data,
                retention_bytes=self.retention_bytes,
            )
            + _SASL.format(password=self.sasl_password)
        )
        if not (self.data / "meta.properties").is_file():
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir(parents=True)
            run_tool(
                self._java(
                    "kafka.tools.StorageTool", "format", "--standalone", "-t", _CLUSTER_ID,
                    "-c", str(properties),
                ),
                self.folder,
            )  # fmt: skip
        return self._java("kafka.Kafka", str(properties))

    def answers(self) -> bool:
        if not port_open(self.port):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            quiet: dict[str, Any] = {"bootstrap.servers": self.url, "log_level": 0}
            return bool(AdminClient(quiet).list_topics(timeout=2.0).brokers)
        except KafkaException:
            return False
