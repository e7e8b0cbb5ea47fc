"""Download a model from a link or Google Drive.

An interrupted download is resumed.
"""

import hashlib
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from urllib.parse import urlsplit

from ctdeface_shared.errors import ConfigurationError

KNOWN = {"cta-deface": "https://drive.google.com/drive/folders/1k4o35Dkl7PWd2yvHqWA2ia-BNKrWBrqg"}
"""Models whose authors publish a link but no digest.

CTA-DEFACE: README of github.com/CCI-Bonn/CTA-DEFACE.
"""
TIMEOUT_SECONDS = 30.0
RETRIES = 3


def is_link(text: str) -> bool:
    """Return whether a text is a link."""
    return urlsplit(text).scheme in {"http", "https"}


def download(link: str, store: Path) -> Path:
    """Download from a link and return the path.

    Args:
        link: to a zip file, or to a folder of Google Drive.
        store: folder of installed networks; a hidden folder in it holds the download.

    Raises:
        ConfigurationError: the download failed.
    """
    place = download_folder_of(link, store)
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
    except (DownloadError, OSError) as error:  # OSError: without a network
        raise ConfigurationError(
            f"{link} cannot be downloaded ({type(error).__name__}). Run the same command again to "
            "resume. If this machine cannot reach the link, download the model on another one and "
            "name its folder or zip file: ctdeface model install NAME --from PATH"
        ) from error


def download_folder_of(link: str, store: Path) -> Path:
    """Return the temporary folder of a download."""
    return store / f".download-{hashlib.sha256(link.encode()).hexdigest()[:16]}"
