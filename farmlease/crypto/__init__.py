"""Keys, seals and certificates: the only room that imports ``cryptography``."""
