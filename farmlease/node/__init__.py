"""One session host: the agent, what it keeps, and the vendor's files it puts in place and takes back."""
