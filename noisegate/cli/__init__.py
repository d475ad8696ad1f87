"""What a person types: one module for each command, with `add_parser(subparsers)` and `run(args)`, thin over the rooms.

Nothing heavy is imported before a command runs, so that `noisegate --help` answers at once. Imports every room;
imported by `noisegate.__main__` alone.
"""
