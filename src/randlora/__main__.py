"""`python -m randlora` is the command-line tool, as `accelerate launch -m randlora` needs it."""

from randlora.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
