"""What survives the process: generations, jobs, keys and the ledger, and the operations that change them together."""
