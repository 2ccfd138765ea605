"""Databento: DBN of versions 1 to 3 and Databento's CSV, both to the same rows.

Imports as :mod:`operators.formats`, and the columns of :mod:`operators.formats.tables`. Only flows
import it.
"""
