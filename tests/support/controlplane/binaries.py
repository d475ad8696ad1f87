"""The programs of a control plane, under the name they had before: `python -m controlplane.binaries`."""

import sys

from binaries import find, main, upstream
from tiers import UnavailableError

__all__ = ["UnavailableError", "find", "upstream"]

if __name__ == "__main__":
    sys.exit(main(["control-plane"]))
