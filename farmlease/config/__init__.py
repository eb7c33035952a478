"""A node's configuration: read for every logon (source), judged for everything else (model)."""
