"""The promise survives the process: it is killed, stopped and started again, and the state fails."""
