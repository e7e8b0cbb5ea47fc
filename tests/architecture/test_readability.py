"""How the code and the pages read, by the figures of `readability`."""

from tests.architecture import readability
from tests.architecture.sources import PACKAGES, modules


def test_package_roots_are_no_piles() -> None:
    """A package root holds few files; everything else has a folder of its own."""
    counts = {package: len(readability.root_files(package)) for package in PACKAGES}
    limits = readability.MOST_ROOT_FILES
    assert not {package: count for package, count in counts.items() if count > limits[package]}


def test_summaries_are_short() -> None:
    """First docstring lines have at most nine words on average, and none has more than 18."""
    found = readability.summaries(modules())
    assert readability.mean_words(found.values()) <= readability.MOST_WORDS_MEAN
    most = readability.MOST_WORDS
    assert not {place: text for place, text in found.items() if len(text.split()) > most}


def test_lines_fit_100_columns() -> None:
    """No line of packages, tests or deployment scripts is wider than 100 columns."""
    assert not readability.too_wide(readability.python_files())


def test_checks_are_rarely_switched_off() -> None:
    """At most 30 lines of the repository switch a check off."""
    assert len(readability.suppressions()) <= readability.MOST_NOQA


def test_pages_stay_short() -> None:
    """All pages together have at most 28 000 words."""
    assert readability.doc_words() <= readability.MOST_DOC_WORDS


def test_names_are_the_words_of_the_field() -> None:
    """No identifier or file name uses a private metaphor."""
    assert not readability.metaphors(modules().values())


def test_prose_is_plain() -> None:
    """Neither code nor pages use phrases that a native reader reads twice."""
    assert not readability.stilted([*modules().values(), *readability.pages()])


def test_the_glossary_names_every_class_of_the_services() -> None:
    """Every public class of the watcher and of the worker's service is in the glossary."""
    assert not readability.missing_from_glossary()


def test_folders_import_each_other_in_one_direction() -> None:
    """There is no cycle of imports between folders, and shared names no other package."""
    assert not readability.import_cycle()
    assert not readability.imports_by_string()
