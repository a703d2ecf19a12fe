"""Who may call and what it may cost: keys, limits, prices, and what the ledger says of them."""
