"""Live feeds over WebSocket: declarations of venues apart from the socket loop.

Imports schemas and the top of sources. Recording flows import it.
"""
