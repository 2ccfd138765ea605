"""Live feeds and redundant lines to raw frames, before anybody else sees them."""
