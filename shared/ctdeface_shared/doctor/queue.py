"""Check of the queue."""

from collections.abc import Iterator

from ctdeface_shared.broker.target import masked, split
from ctdeface_shared.doctor.finding import Finding, ok, problem, warning
from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.settings.service import ServiceConfig


def queue_findings(service: ServiceConfig) -> Iterator[Finding]:
    """Check that the queue can be reached and is declared; nothing is created."""
    url = masked(service.queue.url)
    embedded = split(service.queue.url).scheme == "sqlite"
    try:
        if embedded:
            from ctdeface_shared.broker.sqlite import check
        else:
            from ctdeface_shared.broker.rabbitmq import check
        found = check(service.queue, create=False)
    except ModuleNotFoundError as error:
        yield problem(
            "queue",
            f"{url} needs {error.name}, which is not installed: pip install 'ctdeface[watcher]'",
        )
        return
    except CtDefaceError as error:
        yield problem("queue", str(error))
        return
    # the embedded queue is created at the first start
    grade = warning if embedded else problem
    yield from (grade("queue", text) for text in found.wrong)
    yield from (warning("queue", f"not seen: {text}") for text in found.not_seen)
    if not found.wrong:
        yield ok("queue", f"{found.server} at {url}")
