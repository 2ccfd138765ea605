"""Topics: a topic per table, exactly once for readers of committed messages.

Imports schemas and the top of sinks. The registry and flows import it; other stores do not.
"""
