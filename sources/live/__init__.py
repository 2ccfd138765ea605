"""Live feeds over WebSocket: what a venue wants (pure declarations) apart from the socket loop."""
