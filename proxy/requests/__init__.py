"""What a caller may ask for: checked, routed, translated for each provider.

The result is a request with the routes that can serve it and a fingerprint that its repeats share.
"""
