"""Which motion: what is expected beforehand, the rigid search, and which of the candidates can be defended."""
