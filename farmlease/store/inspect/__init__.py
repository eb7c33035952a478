"""What is asked of a server beside leases: facts for ``doctor``, a trial shard for ``bench``, a dump."""
