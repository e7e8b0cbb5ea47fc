"""Run a command as a user whom the modes of files bind, also when the tests run as root.

    python -m tests.support.service.bound COMMAND …

Root reads everything because each program that it starts gets all capabilities; the bit
`SECBIT_NOROOT` of capabilities(7) ends that. Unlike a change of user it leaves interpreter,
checkout and temporary folders as usable as they were.
"""

import ctypes
import os
import sys

PR_SET_SECUREBITS, SECBIT_NOROOT = 28, 1
BOUND = (sys.executable, "-m", "tests.support.service.bound")
"""Stands before a command."""


def main() -> None:
    """Become the command.

    Raises:
        OSError: the system does not let go of root's rights.
    """
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(
        PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "root's rights cannot be given up")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
