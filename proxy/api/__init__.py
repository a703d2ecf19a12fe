"""The HTTP surface: one file per resource, and the edge that every request passes."""
