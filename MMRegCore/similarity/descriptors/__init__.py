"""Measures that compare vectors, position by position: dense correlation can be made of any of them."""
