"""Pins the public images of `deploy/` by digest: `make images`, after a version was changed.

Docker asks the registry for the digest of the list of all platforms; nothing is pulled.
"""

import re
import subprocess
import sys
from collections.abc import Callable

from deploy.setup_venv import ROOT, SetupError

FILES = (ROOT / "deploy/docker/Dockerfile", ROOT / "deploy/compose.yaml")
_IMAGE = re.compile(
    r"^(FROM |\s+image: )([a-z0-9./-]+:[A-Za-z0-9._-]+)(@sha256:[0-9a-f]{64})?(?=\s|$)",
    re.MULTILINE,
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def main() -> int:
    """Write the digests; on failure print one line, change nothing and return 78."""
    try:
        pinned = {file: with_digests(file.read_text(encoding="utf-8"), ask) for file in FILES}
    except SetupError as error:
        print(f"ctdeface: {error}", file=sys.stderr)
        return 78
    for file, text in pinned.items():
        file.write_text(text, encoding="utf-8")
    return 0


def images(text: str) -> dict[str, str]:
    """Return the digest of each versioned image in a Dockerfile or Compose file, or nothing."""
    return {name: digest.removeprefix("@") for _, name, digest in _IMAGE.findall(text)}


def with_digests(text: str, digest_of: Callable[[str], str]) -> str:
    """Return a Dockerfile or Compose file with the digest of each versioned image."""
    return _IMAGE.sub(lambda match: f"{match[1]}{match[2]}@{digest_of(match[2])}", text)


def ask(image: str) -> str:
    """Return the digest that the registry has for an image.

    Raises:
        SetupError: docker is not there, or does not find it.
    """
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}"]
    try:
        done = subprocess.run([*command, image], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise SetupError(f"no digest of {image}: {reason.strip().splitlines()[-1]}") from error
    if not _DIGEST.fullmatch(done.stdout.strip()):
        raise SetupError(f"docker answers no digest of {image}; docker with buildx is required")
    print(f"{image}@{done.stdout.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
