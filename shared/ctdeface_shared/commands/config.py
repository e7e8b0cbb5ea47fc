"""Show every setting in effect and where it came from: environment, file or default.

Secrets are masked.
"""

import argparse

from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_CONFIGURATION, EXIT_OK

EXAMPLES = """\
examples:
  ctdeface config                               the settings in effect here
  ctdeface config --config site.toml            check a settings file
  CTDEFACE_DEFACE__EARS=true ctdeface config    the environment overrides the file
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "the settings are valid",
    EXIT_CONFIGURATION: "a setting is not valid",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options beyond those of every command."""
    del parser


def run(namespace: argparse.Namespace) -> int:
    """Print one line per setting.

    Raises:
        ConfigurationError: the settings are not valid.
    """
    from rich.console import Console
    from rich.table import Table

    from ctdeface_shared.settings.loading import load

    loaded = load(namespace.config)
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for key, origin in loaded.origins.items():
        value: object = loaded.settings
        for name in key.split("."):
            value = getattr(value, name)
        table.add_row(key, "none" if value is None else str(value), origin)
    Console(soft_wrap=True, markup=False, highlight=False).print(table)
    return EXIT_OK
