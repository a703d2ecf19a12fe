"""The engine for several replicas: a PostgreSQL database, and a few held connections."""
