"""What every long-running program of ours has in common: its log, its signals, its health port, the files it is given.

Imports `isolation` and no other room; imported by the webhook, the controller and the node enforcer.
"""
