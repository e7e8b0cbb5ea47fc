"""The exit codes of every command."""

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_CONFIGURATION = 78
EXIT_INTERRUPTED = 130

USAGE_EXIT_CODES = {
    EXIT_USAGE: "the command line was not understood",
    EXIT_CONFIGURATION: "a setting, a folder or the installation must be corrected first",
}
"""Meanings that every command shares."""

COMMON_EXIT_CODES = {**USAGE_EXIT_CODES, EXIT_INTERRUPTED: "stopped by Ctrl-C"}
"""The same for commands that Ctrl-C breaks off."""
