"""Rows of our own tables (``csv:``, ``parquet:``, topics) back to events.

Imports as :mod:`operators.formats`. Flows and :mod:`operators.formats.dbn` import it.
"""
