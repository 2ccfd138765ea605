"""What things are: units, codes and one field table per record.

Everything else (Arrow schema, kernel row layout, SQL, Avro, expectations) is derived from the
field tables in :mod:`schemas.tables`. This package imports nothing of ours and does no I/O.
"""
