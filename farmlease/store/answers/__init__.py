"""What the scripts answer, parsed once into frozen values."""
