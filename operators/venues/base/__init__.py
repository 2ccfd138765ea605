"""Shared by venues: listings of instruments, and which channel keeps a book.

Imports schemas, the top of operators and :mod:`operators.normalise`. Only venues import it.
"""
