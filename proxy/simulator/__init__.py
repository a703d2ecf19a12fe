"""All four providers' dialects on one socket: for the demo, the end-to-end tests and the benchmarks.

Written from the providers' observed behaviour and not from our adapters, so that it is an independent witness:
nothing here imports the rest of the house but its clock. Words in a prompt steer it (see ``words``).
"""

from proxy.simulator.app import base_urls, create_simulator
from proxy.simulator.simulation import DEMO_KEY, DEMO_TOKEN, Tokens

__all__ = ["DEMO_KEY", "DEMO_TOKEN", "Tokens", "base_urls", "create_simulator"]
