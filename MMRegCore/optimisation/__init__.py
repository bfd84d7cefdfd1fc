"""The parts that methods are made of: correlation, convex and gradient optimisation."""
