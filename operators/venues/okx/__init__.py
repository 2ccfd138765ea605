"""OKX: WebSocket API v5, and v3 of recordings until 2021."""
