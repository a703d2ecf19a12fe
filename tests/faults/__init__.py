"""Every fault of facts/reliability.md §5 but 37-39, on real sockets; the numbers in the names are the table's rows."""
