"""What runs a training, whatever it trains: loop, checkpoints, curves, several processes, averaged weights."""
