"""Topics as feeds: every partition one, raw frames or rows of a table.

Imports schemas and the top of sources. The registry and flows import it.
"""
