"""Who pays, and how much: what a picture costs."""
