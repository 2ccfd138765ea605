"""Bytes of a feed to events: the decoder's frame loop, event rows, and rows that need no book.

Imports schemas and the top of operators. Formats, venues and books may import it.
"""
