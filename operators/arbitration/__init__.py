"""Redundant lines and connections of one feed to one stream; the protocols that lines speak.

Imports schemas and the top of operators. Recording flows import it.
"""
