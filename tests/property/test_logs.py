"""Whatever is logged, only what the allow-list names comes out."""

import io
import json
import logging

import structlog
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared import logs

NAMES = st.text(min_size=1, max_size=12).filter(
    lambda name: (
        name not in {"event", "exc_info", "stack_info", "stackLevel", "stacklevel", "extra"}
    )
)


@given(
    event=st.text(),
    context=st.dictionaries(
        NAMES | st.sampled_from(sorted(logs.ALLOWED_KEYS - {"event"})), st.text()
    ),
)
def test_no_key_and_no_text_gets_past_the_allow_list(event: str, context: dict[str, str]) -> None:
    """Every line is JSON, its keys are allowed ones and its event is a plain name."""
    line: dict[str, object] = {"event": event, **context}
    for processor in (
        logs.withhold_foreign_text,
        logs.trace_without_messages,
        logs.keep_allowed_keys,
    ):
        line = dict(processor(None, "info", line))
    assert set(line) <= logs.ALLOWED_KEYS
    said = line["event"]
    assert said in {event, "text_withheld"}
    assert str(said).replace("_", "").isalnum()
    assert json.loads(json.dumps(line)) == line


@given(text=st.text())
def test_free_text_of_a_library_never_arrives(text: str) -> None:
    """Other libraries' log lines are reduced to level and name."""
    root = logging.getLogger()
    earlier, level = root.handlers, root.level
    stream = io.StringIO()
    logs.configure(stream)
    try:
        logging.getLogger("pydicom").warning("Value %s", text)
    finally:
        root.handlers = earlier
        root.setLevel(level)
        structlog.reset_defaults()
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["level"]) == ("text_withheld", "pydicom", "warning")
    assert set(line) <= logs.ALLOWED_KEYS
