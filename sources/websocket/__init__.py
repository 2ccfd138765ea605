"""Live feeds of venues: connections, subscriptions and REST snapshots; a page per venue.

Imports schemas and the top of sources (config, url, errors); no other kind of source.
Recording flows import it: a live feed is recorded first, and read from the record.
"""
