"""The providers' dialects as pure translators: one file each, their models as data.

``boundary`` is what all of them speak; ``registry`` is the list.
"""
