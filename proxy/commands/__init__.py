"""The commands, one file for each family: its arguments, and what it does."""
