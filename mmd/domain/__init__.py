"""Frozen values every other room speaks in: ids, units, instruments, events, actions, reasons, errors."""
