"""Accuracy and speed, measured; ``python -m benchmarks`` runs everything, ``python -m benchmarks NAME …`` a part."""
