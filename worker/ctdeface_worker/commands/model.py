"""Lists, installs and checks the networks that can find the face. What is installed is used only by name: see `use`."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_CONFIGURATION, EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from ctdeface_shared.settings.loading import Settings
    from ctdeface_worker.segmentation.models.store import Model

EXAMPLES = """\
examples:
  ctdeface model list                                            name, origin, digest, size, and which is in use
  ctdeface model install cta-deface --from cta-deface.zip        from a zip file or a folder
  ctdeface model install cta-deface --sha256 0123…               from the link its authors document, held against a digest
  ctdeface model verify                                          compute the digests again
  ctdeface model use cta-deface                                  say which setting makes it the one that finds faces
  ctdeface model pack work/model --out folder                    the form of a trained network that ships with the package
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "done, and every network that was checked is unchanged",
    EXIT_REFUSED: "a download or storage failed",
    EXIT_CONFIGURATION: "a network was changed or is missing, or a setting is not valid",
}

Say: TypeAlias = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done with models."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show the networks of this installation")
    install = actions.add_parser("install", help="install an nnU-Net v2 model folder")
    install.add_argument(
        "name", metavar="NAME", help="what it shall be called; cta-deface is known by its link"
    )
    install.add_argument("--from", dest="source", metavar="FOLDER|ZIP|LINK", help="where it is")
    install.add_argument(
        "--sha256",
        metavar="DIGEST",
        help="refuse it unless the zip file, or the model as listed, has this digest",
    )
    verify = actions.add_parser("verify", help="compute the digests again and compare")
    verify.add_argument("name", nargs="?", metavar="NAME", help="only this one")
    use = actions.add_parser("use", help="say which setting chooses a network")
    use.add_argument("name", metavar="NAME", help="an installed network, or shipped")
    pack = actions.add_parser(
        "pack", help="make the form of a trained network that ships with the package"
    )
    pack.add_argument("folder", type=Path, metavar="FOLDER", help="exported by `ctdeface train`")
    pack.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder")


def run(namespace: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        ConfigurationError: a model is missing, damaged, unsafe or of another kind.
    """
    from rich.console import Console

    from ctdeface_shared.settings.loading import load

    console = Console(soft_wrap=True, markup=False, highlight=False)
    return _ACTIONS[namespace.action](namespace, load(namespace.config).settings, console.print)


def segmenter_of(model: "Model") -> str:
    """Return the name of the segmenter that uses a model."""
    from ctdeface_worker.segmentation.models.store import SHIPPED

    return "network" if model.name == SHIPPED else f"nnunet:{model.name}"


def _list(_: argparse.Namespace, settings: "Settings", say: Say) -> int:
    chosen = settings.deface.segmenter
    there = _all(settings)
    for model in there:
        size = model.files().size / 1e6
        in_use = "   in use" if chosen.removesuffix(":mirrored") == segmenter_of(model) else ""
        say(f"{model.name}   {model.origin}   {size:.1f} MB   {model.sha256}{in_use}")
        if model.source:
            say(f"  from {model.source}")
    if not there:
        say(f"no network is installed in {settings.models.place}")
    say(f"deface.segmenter is {chosen}")
    return 0


def _install(namespace: argparse.Namespace, settings: "Settings", say: Say) -> int:
    from ctdeface_worker.segmentation.models.install import InstallRequest, install

    model = install(
        InstallRequest(name=namespace.name, source=namespace.source, sha256=namespace.sha256),
        settings.models.place,
    )
    say(f"{model.name} is installed in {model.folder}")
    say(f"digest {model.sha256}, origin: {model.origin}")
    if not namespace.sha256:
        say(
            "Nobody vouched for this digest. It was written down, and every load is held against it."
        )
    return 0


def _verify(namespace: argparse.Namespace, settings: "Settings", say: Say) -> int:
    wanted = [model for model in _all(settings) if namespace.name in {None, model.name}]
    if namespace.name and not wanted:
        _find(namespace.name, settings)
    wrong = 0
    for model in wanted:
        try:
            model.verified_files()
            say(f"{model.name}   as installed   {model.sha256}")
        except ConfigurationError as error:
            wrong += 1
            say(f"{model.name}   WRONG   {error}")
    return 78 if wrong else 0


def _use(namespace: argparse.Namespace, settings: "Settings", say: Say) -> int:
    model = _find(namespace.name, settings)
    model.verified_files()
    name = segmenter_of(model)
    if settings.deface.segmenter == name:
        say(f"{model.name} is in use already")
        return 0
    say(f'write this into the settings file:\n\n[deface]\nsegmenter = "{name}"\n')
    say(f"or into the environment: CTDEFACE_DEFACE__SEGMENTER={name}")
    say(
        "workers that run take it when they are started again; `ctdeface replay --segmenter` does single cases again with it"
    )
    return 0


def _pack(namespace: argparse.Namespace, _: "Settings", say: Say) -> int:
    from ctdeface_worker.segmentation.models.packing import pack

    say(f"packed: {pack(namespace.folder, namespace.out)}")
    return 0


def _all(settings: "Settings") -> list["Model"]:
    from ctdeface_worker.segmentation.models.store import installed, shipped

    ours = shipped()
    return [*([ours] if ours else []), *installed(settings.models.place)]


def _find(name: str, settings: "Settings") -> "Model":
    from ctdeface_worker.segmentation.models.store import SHIPPED, find, shipped

    return (shipped() if name == SHIPPED else None) or find(name, settings.models.place)


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, "Settings", Say], int]] = {
    "list": _list,
    "install": _install,
    "verify": _verify,
    "use": _use,
    "pack": _pack,
}
