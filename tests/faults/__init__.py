"""Every fault that docs/reliability.md promises an answer to, on real sockets."""
