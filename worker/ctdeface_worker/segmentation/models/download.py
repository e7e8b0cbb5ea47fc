"""Fetches a model over the network: from a plain link or from Google Drive, going on where an earlier try broke off."""

import hashlib
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from urllib.parse import urlsplit

from ctdeface_shared.errors import ConfigurationError

KNOWN = {"cta-deface": "https://drive.google.com/drive/folders/1k4o35Dkl7PWd2yvHqWA2ia-BNKrWBrqg"}
"""Models whose authors document a link: CTA-DEFACE in the README of github.com/CCI-Bonn/CTA-DEFACE. They state no digest."""
TIMEOUT_SECONDS = 30.0
RETRIES = 3


def is_link(text: str) -> bool:
    """Whether a text is a link rather than a path."""
    return urlsplit(text).scheme in {"http", "https"}


def download(link: str, store: Path) -> Path:
    """Fetch what a link leads to and return where it lies; a broken download goes on from where it stood.

    Args:
        link: to a zip file, or to a folder of Google Drive.
        store: folder of installed networks, in which a hidden folder holds what is being fetched.

    Raises:
        ConfigurationError: it cannot be fetched.
    """
    place = parts(link, store)
    place.mkdir(parents=True, exist_ok=True)
    from gdown import download as fetch
    from gdown import download_folder
    from gdown.exceptions import DownloadError

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if "/folders/" in link:
                download_folder(
                    link,
                    output=str(place),
                    quiet=True,
                    resume=True,
                    retries=RETRIES,
                    timeout=TIMEOUT_SECONDS,
                    use_cookies=False,
                )
                return place
            file = place / "model.zip"
            fetch(
                link,
                str(file),
                quiet=True,
                resume=True,
                retries=RETRIES,
                timeout=TIMEOUT_SECONDS,
                use_cookies=False,
            )
            return file
    except (DownloadError, OSError) as error:  # OSError: what comes without a network
        raise ConfigurationError(
            f"{link} cannot be fetched ({type(error).__name__}). The same command goes on where this one stopped. Where this machine has "
            f"no way there, fetch the model on another one and give its folder or zip file: ctdeface model install NAME --from PATH"
        ) from error


def parts(link: str, store: Path) -> Path:
    """Return where a download of this link lies until it is installed."""
    return store / f".download-{hashlib.sha256(link.encode()).hexdigest()[:16]}"
