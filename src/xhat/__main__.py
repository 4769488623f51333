"""``python -m xhat`` is the same as ``xhat``."""

from xhat.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
