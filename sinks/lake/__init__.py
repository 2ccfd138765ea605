"""The lake: hive-partitioned Parquet, written exactly once, compacted and back-filled.

Imports schemas and the top of sinks. The registry and flows import it; other stores do not.
"""
