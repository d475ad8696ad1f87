"""The runtime's end of the enforcer: events heard and answered over the Node Resource Interface.

bytes -> mux -> ttrpc -> messages -> values of `events`; only `connection` and `plugin` know a socket and a loop.
"""
