"""Pictures as bytes and files: inspected, checked, converted, stored.

``codec`` knows the types, ``drafts`` are files being written, a ``store`` keeps what callers may fetch.
"""
