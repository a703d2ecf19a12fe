"""Pictures as bytes and files: looked at, checked, converted, kept.

``codec`` knows the types, ``drafts`` are what is being written, a ``store`` keeps what callers may fetch.
"""
