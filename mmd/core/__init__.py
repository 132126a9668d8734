"""The pure heart: events in, actions out; no clock, no task, no I/O."""
