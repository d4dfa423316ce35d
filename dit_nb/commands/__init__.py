"""The commands of `dit-nb`, one module each."""
