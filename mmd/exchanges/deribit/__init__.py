"""Deribit JSON-RPC over WebSocket, API v2."""
