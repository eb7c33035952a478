"""The accounts of this host: who they are, where they live, and in which groups."""
