"""A venue to test against: replays a recorded capture over real WebSocket and REST, with faults."""
