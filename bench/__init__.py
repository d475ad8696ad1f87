"""Benchmarks of the admission server, runnable by anyone: `python -m bench` (see docs/benchmarks.md).

pods makes the requests, cluster the files the server runs with, servers starts and watches processes, load sends and
checks, cases says what is measured, stages says what costs what, report tells it.
"""
