"""The command line ``mmreg``."""

from MMRegCore.cli.main import main

__all__ = ["main"]
