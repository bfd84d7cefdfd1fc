"""Training of networks: the data, a recipe for each network, the engine that runs them all."""
