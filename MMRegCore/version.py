"""The version of MMReg."""

__version__ = "0.1.0"
