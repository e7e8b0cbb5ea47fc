"""`python -m ctdeface_shared` is `ctdeface`, wherever the command itself may lie."""

import sys

from ctdeface_shared.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
