"""The database: TimescaleDB tables, written exactly once by COPY.

Imports schemas and the top of sinks. The registry, flows and infra import it; other stores do not.
"""
