"""Text on a terminal."""

from ctdeface_shared.console import printable, wrapped


def test_a_long_line_is_wrapped_between_words_and_indented() -> None:
    """Columns at its begin stay as they are, and a path that is too long stays whole."""
    line = "  case-1  MissingSlices: slices are missing between 10 mm and 20 mm"
    assert wrapped(line, 4, 40).splitlines() == [
        "  case-1  MissingSlices: slices are",
        "    missing between 10 mm and 20 mm",
    ]
    path = "/srv/" + "x" * 60
    assert wrapped(f"see {path}", 4, 40).splitlines() == ["see", f"    {path}"]


def test_what_would_move_the_cursor_is_escaped() -> None:
    """Names of cases come from outside."""
    assert printable("a\x1b[2Jb\udcff") == "a\\x1b[2Jb\\udcff"
