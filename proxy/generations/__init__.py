"""What one request asked for, with its jobs and its end; it outlives the request, and a repeat joins it.

``record`` is the data, ``registry`` says who repeats whom, ``runner`` owns the tasks, ``results`` brings a finished
job's picture into the form that was asked for.
"""
