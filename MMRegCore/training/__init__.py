"""Training: data, augmentation, losses, recipes, and the one loop that runs them all."""
