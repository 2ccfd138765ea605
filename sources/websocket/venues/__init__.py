"""Declarations of each venue for a recorder: no socket, no clock, no chance."""
