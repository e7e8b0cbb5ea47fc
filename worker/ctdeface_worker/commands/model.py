"""List, install and check the networks that find the face.

An installed network is used only if a setting names it; see `use`.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctdeface_shared.console import print_line
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_CONFIGURATION, EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from ctdeface_shared.settings.loading import Settings
    from ctdeface_worker.segmentation.models.store import Model

EXAMPLES = """\
examples:
  ctdeface model list                                       name, origin, digest, size, use
  ctdeface model install cta-deface --from cta-deface.zip   from a zip file or a folder
  ctdeface model install cta-deface --sha256 0123…          from its known link, with a digest
  ctdeface model verify                                     compute the digests again
  ctdeface model use cta-deface                             show the setting that selects it
  ctdeface model pack work/model --out folder               pack a trained network for shipping
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "done, and every network that was checked is unchanged",
    EXIT_REFUSED: "a download or storage failed",
    EXIT_CONFIGURATION: "a network was changed or is missing, or a setting is not valid",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions on models."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show the networks of this installation")
    install = actions.add_parser("install", help="install an nnU-Net v2 model folder")
    install.add_argument(
        "name", metavar="NAME", help="its name here; the link of cta-deface is known"
    )
    install.add_argument("--from", dest="source", metavar="FOLDER|ZIP|LINK", help="its source")
    install.add_argument(
        "--sha256",
        metavar="DIGEST",
        help="required digest of the zip file, or of the model as listed",
    )
    verify = actions.add_parser("verify", help="compute the digests again and compare")
    verify.add_argument("name", nargs="?", metavar="NAME", help="only this network")
    use = actions.add_parser("use", help="show the setting that selects a network")
    use.add_argument("name", metavar="NAME", help="an installed network, or shipped")
    pack = actions.add_parser("pack", help="pack a trained network for shipping with the package")
    pack.add_argument("folder", type=Path, metavar="FOLDER", help="exported by `ctdeface train`")
    pack.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder")


def run(namespace: argparse.Namespace) -> int:
    """Run the chosen action.

    Raises:
        ConfigurationError: a model is missing, damaged, unsafe or of another kind.
    """
    from ctdeface_shared.settings.loading import load

    return _ACTIONS[namespace.action](namespace, load(namespace.config).settings)


def segmenter_of(model: "Model") -> str:
    """Return the name of the segmenter that uses a model."""
    from ctdeface_worker.segmentation.models.store import SHIPPED

    return "network" if model.name == SHIPPED else f"nnunet:{model.name}"


def _list(_: argparse.Namespace, settings: "Settings") -> int:
    chosen = settings.deface.segmenter
    there = _all(settings)
    for model in there:
        size = model.files().size / 1e6
        in_use = "   in use" if chosen.removesuffix(":mirrored") == segmenter_of(model) else ""
        print_line(f"{model.name}   {model.origin}   {size:.1f} MB   {model.sha256}{in_use}")
        if model.source:
            print_line(f"  from {model.source}")
    if not there:
        print_line(
            f"no network is installed in {settings.models.place}; "
            "see `ctdeface model install --help`"
        )
    print_line(f"deface.segmenter is {chosen}")
    return EXIT_OK


def _install(namespace: argparse.Namespace, settings: "Settings") -> int:
    from ctdeface_worker.segmentation.models.install import InstallRequest, install

    model = install(
        InstallRequest(name=namespace.name, source=namespace.source, sha256=namespace.sha256),
        settings.models.place,
    )
    print_line(f"{model.name} is installed in {model.folder}")
    print_line(f"digest {model.sha256}, origin: {model.origin}")
    if not namespace.sha256:
        print_line(
            "the digest was not compared with a published one (--sha256); it is recorded and "
            "checked at every load"
        )
    return EXIT_OK


def _verify(namespace: argparse.Namespace, settings: "Settings") -> int:
    wanted = [model for model in _all(settings) if namespace.name in {None, model.name}]
    if namespace.name and not wanted:
        _find(namespace.name, settings)
    wrong = 0
    for model in wanted:
        try:
            model.verified_files()
            print_line(f"{model.name}   as installed   {model.sha256}")
        except ConfigurationError as error:
            wrong += 1
            print_line(f"{model.name}   WRONG   {error}")
    return EXIT_CONFIGURATION if wrong else EXIT_OK


def _use(namespace: argparse.Namespace, settings: "Settings") -> int:
    model = _find(namespace.name, settings)
    model.verified_files()
    name = segmenter_of(model)
    if settings.deface.segmenter == name:
        print_line(f"{model.name} is already in use")
        return EXIT_OK
    for line in ("write this into the settings file:", "", "[deface]", f'segmenter = "{name}"', ""):
        print_line(line)
    print_line(f"or into the environment: CTDEFACE_DEFACE__SEGMENTER={name}")
    print_line(
        "restart running workers to use it; in a service, `ctdeface replay --segmenter` runs "
        "single cases again with it"
    )
    return EXIT_OK


def _pack(namespace: argparse.Namespace, _: "Settings") -> int:
    from ctdeface_worker.segmentation.models.packing import pack

    print_line(f"packed: {pack(namespace.folder, namespace.out)}")
    return EXIT_OK


def _all(settings: "Settings") -> list["Model"]:
    from ctdeface_worker.segmentation.models.store import installed, shipped

    ours = shipped()
    return [*([ours] if ours else []), *installed(settings.models.place)]


def _find(name: str, settings: "Settings") -> "Model":
    from ctdeface_worker.segmentation.models.store import SHIPPED, find, shipped

    return (shipped() if name == SHIPPED else None) or find(name, settings.models.place)


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, "Settings"], int]] = {
    "list": _list,
    "install": _install,
    "verify": _verify,
    "use": _use,
    "pack": _pack,
}
