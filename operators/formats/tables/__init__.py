"""Rows of our own tables (``csv:``, ``parquet:``, topics) back to events."""
