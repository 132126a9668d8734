"""Everything that waits: daemon, supervisor, pump, outbox, timers, reload, shutdown."""
