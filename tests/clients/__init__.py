"""Real clients against the demo: ``python -m tests.clients`` or ``make test-clients``. No part of pytest's run."""
