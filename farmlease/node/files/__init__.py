"""The user's record and the vendor's files on this host."""
