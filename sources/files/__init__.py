"""Readers of files: one module per format, over the same blocks of bytes or rows.

Imports schemas and the top of sources. The registry imports it.
"""
