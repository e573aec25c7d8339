"""``python -m backends.conformance NAME``."""

import sys

from backends.conformance.suite import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
