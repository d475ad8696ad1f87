"""A certificate authority, serving and client certificates, and their renewal.

`pair` is a certificate with its key and what it says, `names` what a certificate may be made for, `authority` makes
and signs, `verification` tells what is wrong, `rotation` decides what a directory should hold; all of these are pure,
and the time is passed in. Only `store` touches the disk.

Imports `isolation.problems` for showing a bad value, and nothing else of the project. Imported by the command line.
"""
