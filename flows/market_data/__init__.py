"""Market data: feeds to events, books, bars and sinks, and which decoder reads which source."""
