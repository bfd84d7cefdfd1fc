"""The implementation of the Slicer module MMRegSlicer; imports neither torch nor Qt by itself."""
