"""What ``farmlease doctor`` finds, judged from facts alone."""
