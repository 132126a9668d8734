"""mmd: the market-maker daemon that sysadmins trust."""

__version__ = "0.1.0"
