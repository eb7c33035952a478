"""How answers are printed: tables, JSON, CSV, progress."""
