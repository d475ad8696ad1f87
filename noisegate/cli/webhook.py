"""."""

import argparse


def add_parser(subparsers):
    pass
