"""AdmissionReview in, JSON Patch out.

`admit` decides and `mutate` injects, both pure; `objects` and `review` read and write the wire; only `server` knows
aiohttp. Not root, touches no node. Imports `isolation`; imported by the command line.
"""
