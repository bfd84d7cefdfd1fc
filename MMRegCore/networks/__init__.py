"""Neural networks: modules from tensors to tensors, and the reading of their weights."""
