"""Originals, audit entry and index at a case's end."""

from collections.abc import Callable
from dataclasses import dataclass

from ctdeface_shared.errors import StorageUnavailable
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import ServiceSpool
from ctdeface_worker.case.run import CaseResources, Child
from ctdeface_worker.publishing.audit_entry import UNSEEN
from ctdeface_worker.publishing.journal import show_in_index
from ctdeface_worker.publishing.originals import archive, rule_of
from ctdeface_worker.publishing.outbox import OutputRules
from ctdeface_worker.publishing.quarantine import refuse
from ctdeface_worker.report.model import CaseReport, State


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEnds:
    """The last steps of a case.

    Each step can be repeated after a crash.

    Attributes:
        spool: folders of the service.
        originals: what happens to dropped files.
        stale_seconds: age after which an untouched lock counts as abandoned.
        attest: writes an entry about the end of a case to the audit log.
    """

    spool: ServiceSpool
    originals: Originals
    stale_seconds: float
    attest: Callable[[CaseReport], None] = lambda _: None

    def before_done(self, report: CaseReport) -> None:
        """Archive the originals of a visible case, if they are to be, and record its end.

        Raises:
            StorageUnavailable: the audit entry could not be written.
            OSError: storage failed.
        """
        if self._rule_of(report) is Originals.ARCHIVE:
            archive(self.spool, report)
        self.attest(report)
        show_in_index(self.spool, report, stale_seconds=self.stale_seconds)

    def archive_repeated(self, report: CaseReport) -> bool:
        """Archive the originals of a released case that was dropped again.

        Nothing else can be missing, so this returns True.

        Raises:
            StorageUnavailable: storage failed.
        """
        with atomic.storage_errors():
            if self._rule_of(report) is Originals.ARCHIVE:
                archive(self.spool, report)
        return True

    def refuse(self, report: CaseReport) -> CaseReport:
        """Quarantine a refused case or archive a superseded one.

        Returns:
            The report that stands; see `quarantine.refuse`.

        Raises:
            StorageUnavailable: the end cannot be recorded now.
        """
        try:
            return self._refuse(report)
        except OSError as error:
            # No fault of the case: it waits as long as it takes.
            raise StorageUnavailable(
                f"the end of the case cannot be recorded: {error.strerror}"
            ) from error

    def _refuse(self, report: CaseReport) -> CaseReport:
        rule = self._rule_of(report)
        if report.state is State.REFUSED:
            report = refuse(self.spool, report, rule, stale_seconds=self.stale_seconds)
        elif rule is not Originals.KEEP:
            # Nothing was released, so superseded originals are never deleted.
            archive(self.spool, report)
        if report.state in UNSEEN:
            self.attest(report)
            show_in_index(self.spool, report, stale_seconds=self.stale_seconds)
        return report

    def _rule_of(self, report: CaseReport) -> Originals:
        return rule_of(self.spool, report, self.originals)


def case_resources(
    ends: CaseEnds, settings: Settings, child: Child, rules: OutputRules
) -> CaseResources:
    """Return what the cases of the service are run with."""
    return CaseResources(
        spool=ends.spool,
        rules=rules,
        settings=settings,
        child=child,
        refuse=ends.refuse,
        recorded_end_stands=True,
        is_complete=ends.archive_repeated,
    )
