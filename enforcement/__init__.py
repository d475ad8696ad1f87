"""Container event in, limits on the node out: the node enforcer's room.

Empty until the node enforcer lands. It will import `isolation` and nothing of `webhook`.
"""
