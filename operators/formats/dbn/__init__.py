"""Databento: DBN of versions 1 to 3 and Databento's CSV, both to the same rows."""
