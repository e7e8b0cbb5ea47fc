"""What a terminal can take."""


def printable(text: str) -> str:
    """Return a text that any terminal takes: bytes of names that are no UTF-8, and control characters, appear as escapes."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in escaped
    )
