"""What a caller may ask for: checked, routed, put into each provider's words.

A request leaves this room with the routes that can serve it and a fingerprint that its repeats share.
"""
