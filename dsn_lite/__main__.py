"""`python -m dsn_lite` is `dsn-lite`; torchrun needs it."""

import sys

from dsn_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
