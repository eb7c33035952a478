"""What the words mean and what is decided from them. No input or output of any kind happens here."""
