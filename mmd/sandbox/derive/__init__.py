"""The sandbox's Derive dialect: its v3 JSON-RPC over WebSocket and HTTP, as docs.derive.xyz describes it."""
