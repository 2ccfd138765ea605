"""Local services on a bare machine: the same Kafka, TimescaleDB and Prometheus a cluster has.

Where a Docker engine answers, ``infra/compose.yaml`` starts the official images. Elsewhere each
service runs from packages, unpacked into one folder of its own, on loopback, unprivileged.
"""
