"""The findings of ``farmlease doctor``, decided from facts alone."""
