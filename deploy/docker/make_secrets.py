"""Creates the passwords and RabbitMQ users of a deployment, once.

Run `python3 deploy/docker/make_secrets.py [FOLDER]`.

Runs with the standard library alone. What is there already stays, so it can be run again. The
folder is for its owner only; the files in it can be read by everybody, because a container that
gets one of them runs under another user.
"""

import base64
import hashlib
import json
import secrets
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent
DEFINITIONS = "rabbitmq-definitions.json"
OTHERS = ("grafana-password",)


def main(folder: Path) -> int:
    """Create missing secrets and print their folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    definitions = json.loads((DEPLOY / "rabbitmq/definitions.json").read_text(encoding="utf-8"))
    for user in definitions["users"]:
        password = kept_password(folder / f"{user['name'].removeprefix('ctdeface-')}-password")
        user["password_hash"] = password_hash(password, secrets.token_bytes(4))
    for name in OTHERS:
        kept_password(folder / name)
    write(folder / DEFINITIONS, json.dumps(definitions, indent=2) + "\n")
    print(f"ctdeface: passwords and {DEFINITIONS} are in {folder}")
    return 0


def kept_password(file: Path) -> str:
    """Return the password in a file; create the file with a new password if missing."""
    if not file.exists():
        write(file, secrets.token_urlsafe(24))
    return file.read_text(encoding="utf-8").strip()


def password_hash(password: str, salt: bytes) -> str:
    """Return the salted SHA-256 of a password, as RabbitMQ stores it."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def write(file: Path, text: str) -> None:
    """Write a file atomically."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o444)
    new.replace(file)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else DEPLOY / "secrets"))
