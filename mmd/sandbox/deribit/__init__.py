"""The sandbox's Deribit dialect: JSON-RPC over WebSocket and HTTP, as docs.deribit.com describes it."""
