"""Benchmarks of mmd against an exchange-side peer over a real loopback WebSocket: `python -m bench`."""
