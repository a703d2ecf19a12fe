"""Pictures as bytes and files: looked at, checked, converted, kept.

``codec`` knows the types, ``store`` keeps what callers may fetch.
"""
