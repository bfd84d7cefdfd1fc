"""What a registration did and how far to believe it: numbers, maps, a verdict with its reasons."""
