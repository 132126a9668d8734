"""Derive (v3): JSON-RPC over WebSocket, every order signed by a session key. Source: docs.derive.xyz, 2026."""
