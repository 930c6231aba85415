"""``python -m spec_repro``: the commands of `spec_repro.headless.cli`."""

import sys

from spec_repro.headless.cli import main

if __name__ == "__main__":
    sys.exit(main())
