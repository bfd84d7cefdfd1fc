"""Files in and out: images, transforms, landmarks; every format is converted at its edge to RAS mm."""
