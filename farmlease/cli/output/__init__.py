"""Output of answers: tables, JSON, CSV, progress."""
