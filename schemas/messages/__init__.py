"""What travels between rooms and through topics: frames, requests, rows, notes of redundant lines.

Imports the field tables and units; every room may import it.
"""
