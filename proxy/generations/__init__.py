"""What one request asked for, with its jobs and how it ended; it outlives the request, and a repeat joins it.

``record`` is the data, ``registry`` says who repeats whom, ``runner`` owns the tasks, ``results`` turns a finished
job's picture into the form that was asked for.
"""
