"""``python -m spec_repro``: the commands of `spec_repro.headless.cli`."""

from spec_repro.headless.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
