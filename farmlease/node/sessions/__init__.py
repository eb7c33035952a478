"""The life of one session: start, acquire, grant, end and what happens between."""
