"""What the Slicer module MMRegSlicer is made of; imports neither torch nor Qt by itself."""
