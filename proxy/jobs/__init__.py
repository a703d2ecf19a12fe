"""One picture being made at a provider: a slot, one submit, polls until it is finished.

A submit that may have reached the provider is never repeated.
"""
