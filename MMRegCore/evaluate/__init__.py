"""How good a registration is, measured against what is known: landmarks, labels."""
