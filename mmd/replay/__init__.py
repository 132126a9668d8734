"""A journal fed to fresh machines: what was decided is decided again, and compared."""
