"""Whose files they are: the rule of all attributes, and the heads that the watcher reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctdeface_shared.jobs.identity import DropIdentity, PatientIdentity, contradiction
from ctdeface_watcher.inbox.identity import HEAD_BYTES, read_identity
from tests.support.ct_files import ROOT, CtFile, encoded, put, stack

ANNA = {
    "PatientID": "17",
    "IssuerOfPatientID": "north",
    "PatientName": "Müller^Anna=山田^花子",
    "PatientBirthDate": "19500131",
    "PatientSex": "F",
}


def patient(**changes: str | None) -> PatientIdentity:
    """Anna, with some values changed or, by None, absent."""
    return PatientIdentity.of({**ANNA, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientName": "MÜLLER^ANNA^^^=山田^花子=やまだ^はなこ"},
        {"PatientName": "müller^anna "},
        {"PatientName": "Müller, Anna"},
        {"PatientName": "Mu\u0308ller^Anna"},
        {"PatientName": "MÃ¼ller^Anna"},
        {"PatientName": "M?ller^Anna"},
        {"PatientName": "=山田^花子"},
        {"PatientName": None},
        {"PatientID": "17 \0"},
        {"IssuerOfPatientID": None},
        {"PatientBirthDate": "1950.01.31"},
        {"PatientBirthDate": "00000000"},
        {"PatientBirthDate": ""},
        {"PatientSex": "female"},
        {"PatientSex": " f"},
        {"PatientSex": "U"},
        {"PatientSex": None},
    ],
)
def test_another_spelling_of_a_patient_is_the_same_patient(changes: dict[str, str | None]) -> None:
    """Systems write trailing carets, other cases and character sets, and leave values out."""
    assert not patient().contradicts(patient(**changes))
    assert not patient(**changes).contradicts(patient())


@pytest.mark.parametrize(
    ("changes", "attribute"),
    [
        ({"PatientID": "18"}, "PatientID"),
        ({"PatientID": None}, "PatientID"),
        ({"IssuerOfPatientID": "south"}, "IssuerOfPatientID"),
        ({"PatientName": "Müller^Anne"}, "PatientName"),
        ({"PatientName": "Müller^Anna=山田^太郎"}, "PatientName (ideographic)"),
        ({"PatientBirthDate": "19500130"}, "PatientBirthDate"),
        ({"PatientSex": "M"}, "PatientSex"),
    ],
)
def test_one_attribute_that_differs_makes_another_patient(
    changes: dict[str, str | None], attribute: str
) -> None:
    """All other attributes may be equal; the answer names the attribute."""
    assert patient().contradicts(patient(**changes))
    found = contradiction([("a", patient()), ("b", patient()), ("c", patient(**changes))])
    assert found
    assert (found.attributes, found.files) == ((attribute,), ("a", "c"))


def test_a_name_stands_for_a_missing_id() -> None:
    """Without an ID anywhere names are compared as they are, and none is not any."""
    unnamed = PatientIdentity()
    assert not PatientIdentity.of({"PatientName": "A"}).contradicts(PatientIdentity(name="a"))
    assert unnamed.contradicts(PatientIdentity(name="a"))
    assert PatientIdentity(name="m?").contradicts(PatientIdentity(name="b?"))
    assert not unnamed.contradicts(unnamed)


def test_patients_that_only_a_third_file_connects_are_found() -> None:
    """The first file has no birth date, and the others contradict each other."""
    files = [
        ("a", patient(PatientBirthDate=None)),
        ("b", patient()),
        ("c", patient(PatientBirthDate="1949")),
    ]
    found = contradiction(files)
    assert found
    assert found.files == ("b", "c")


EARLIER = DropIdentity(patients=frozenset({patient()}), studies=frozenset({"1.2", "1.3"}))


@pytest.mark.parametrize(
    ("changes", "belongs"),
    [
        ({}, True),
        ({"patients": frozenset({patient(PatientBirthDate=None)})}, True),
        ({"studies": frozenset({"1.2", "1.3"})}, True),
        ({"studies": frozenset({"1.2", "1.4"})}, False),
        ({"studies": frozenset()}, False),
        ({"unreadable": 1}, False),
        ({"patients": frozenset({patient(PatientSex="M")})}, False),
        ({"patients": frozenset({patient(), patient(PatientSex="M")})}, False),
    ],
)
def test_a_drop_belongs_to_an_earlier_one_only_if_all_of_it_does(
    changes: dict[str, Any], belongs: bool
) -> None:
    """Every file is readable, of a study that is known, and of the same patient."""
    drop = DropIdentity(patients=frozenset({patient()}), studies=frozenset({"1.2"}))
    assert replace(drop, **changes).belongs_to(EARLIER) is belongs


def test_a_drop_belongs_to_nothing_without_dicom() -> None:
    """Neither a drop of text nor one after a case of text."""
    assert not DropIdentity().belongs_to(DropIdentity())
    assert not DropIdentity().belongs_to(EARLIER)


def identity_of(folder: Path) -> DropIdentity:
    """Read all files of a folder."""
    return read_identity(folder, sorted(file.name for file in folder.iterdir()))


def test_two_patients_of_one_id_are_told_apart_by_reading(tmp_path: Path) -> None:
    """The same ANONYMOUS, another birth date, sex and study: the late files of someone else."""
    first = {"PatientID": "ANONYMOUS", "PatientBirthDate": "19500131", "PatientSex": "F"}
    second = {"PatientID": "ANONYMOUS", "PatientBirthDate": "19610203", "PatientSex": "M"}
    here = identity_of(put(tmp_path / "a", stack(3, elements=first)))
    more = identity_of(put(tmp_path / "b", stack(5, elements=first)))
    there = identity_of(put(tmp_path / "c", stack(3, elements=second)))
    assert here.studies == {f"{ROOT}2"}
    assert here.belongs_to(more)
    assert not there.belongs_to(more)


def test_what_is_not_a_patients_file_is_passed_over(tmp_path: Path) -> None:
    """Text, resource forks and empty files beside slices."""
    folder = put(tmp_path, stack(2))
    alone = identity_of(folder)
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    (folder / "empty").write_bytes(b"")
    (folder / "._1-0001.dcm").write_bytes(b"\x00\x05\x16\x07" + bytes(200))
    assert identity_of(folder) == alone
    assert alone.unreadable == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        CtFile(syntax="1.2.840.10008.1.2.1.99").content,
        CtFile().content[132:],
        CtFile().content[:400],
        CtFile(elements={"StudyInstanceUID": None}).content,
        CtFile().content.replace(b"LO\x08\x00phantom ", b"LO\xd0\x07" + b"7" * 2000),
        CtFile().content.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x01\x00CS"),
    ],
    ids=["empty", "deflated", "bare", "cut", "no study", "long", "out of order"],
)
def test_a_file_that_does_not_tell_its_study_is_unreadable(tmp_path: Path, content: bytes) -> None:
    """It is named as DICOM, so it is not passed over, and its drop belongs to nothing."""
    folder = put(tmp_path, stack(2))
    earlier = identity_of(folder)
    (folder / "late.dcm").write_bytes(content)
    assert identity_of(folder).unreadable == 1
    assert not identity_of(folder).belongs_to(earlier)


def test_a_study_behind_the_first_megabyte_is_not_looked_for(tmp_path: Path) -> None:
    """A drop of files of any size costs a megabyte of memory."""
    made = CtFile()
    for size, unreadable in ((1000, 0), (HEAD_BYTES, 1)):
        dataset = made.dataset
        dataset.add_new(0x00091010, "OB", bytes(size))
        (tmp_path / "late.dcm").write_bytes(encoded(dataset, made.stored, made.syntax))
        assert identity_of(tmp_path).unreadable == unreadable


def test_a_drop_of_very_many_patients_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Two thousand patients: a thousand are enough to know that they belong to nothing."""
    names = []
    for number in range(1, 1101):
        file = CtFile(elements={"PatientID": str(number)})
        name = f"{number}.dcm"
        (tmp_path / name).write_bytes(file.content[:1000])
        names.append(name)
    found = read_identity(tmp_path, names)
    assert (len(found.patients), found.unreadable) == (1000, 1)
