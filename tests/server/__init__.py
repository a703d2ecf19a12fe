"""Tests of the process and its connections, on real sockets."""
