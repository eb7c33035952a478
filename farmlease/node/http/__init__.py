"""The agent's doors: the API for hooks, the probes for balancers."""
