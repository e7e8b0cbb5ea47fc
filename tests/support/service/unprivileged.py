"""Run a command that file modes restrict, even if the tests run as root.

    python -m tests.support.service.unprivileged COMMAND …

Root reads everything because each program that it starts gets all capabilities; the bit
`SECBIT_NOROOT` of capabilities(7) ends that. Unlike a change of user it leaves interpreter,
checkout and temporary folders as usable as they were.
"""

import ctypes
import os
import sys

PR_SET_SECUREBITS, SECBIT_NOROOT = 28, 1
UNPRIVILEGED = (sys.executable, "-m", "tests.support.service.unprivileged")
"""Prefix of a command line."""


def main() -> None:
    """Replace this process by the command.

    Raises:
        OSError: the system refuses to drop the privileges of root.
    """
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(
        PR_SET_SECUREBITS, SECBIT_NOROOT, 0, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the privileges of root cannot be dropped")
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  the caller names the command


if __name__ == "__main__":
    main()
