"""Where a recorder writes raw frames: topics, Parquet files, captures.

Imports schemas, the top of sinks and the Kafka producer. Recording flows import it.
"""
