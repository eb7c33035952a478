"""What survives a kill -9: the journal, the tables over it, and the evidence of what could not be trusted."""
