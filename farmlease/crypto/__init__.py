"""Keys, seals and certificates: the only room that knows cryptography."""
