"""The process around the application: listening, signals and the drain, and what a connection may ask for.

It stands on uvicorn's inside; ``connection`` lists what it takes of it.
"""
