"""Masks that MMReg finds by itself."""
