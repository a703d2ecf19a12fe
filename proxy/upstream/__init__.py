"""The only HTTP client: every call to a provider, and every fetch of a result.

``addresses`` says where results may come from.
"""
