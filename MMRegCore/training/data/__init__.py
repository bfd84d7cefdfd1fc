"""What trainings learn from: subjects from disk, pairs and patches of them, synthetic contrasts and deformations."""
