"""The Unix socket: protocol, roles, audit of who did what."""
