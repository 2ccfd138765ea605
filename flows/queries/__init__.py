"""Questions to a lake or a database: SQL, frames of polars, answers as tables."""
