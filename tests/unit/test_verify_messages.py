"""The sentences about written files that differ from what was expected."""

from ctdeface_worker.pipeline.verify import files_check, of_input


def test_a_defect_of_an_unchanged_copy_is_described_as_the_inputs() -> None:
    """Bytes after a compressed frame came with the input; no output was written wrongly."""
    check = files_check(2, [of_input("1.dcm: bytes other than zeros follow the compressed image")])
    assert not check.passed
    assert check.message == (
        "1.dcm: bytes other than zeros follow the compressed image; this is a defect of the input, "
        "copied unchanged: export the file again"
    )


def test_files_with_the_same_problem_share_one_sentence() -> None:
    """A series of hundreds of files stays readable."""
    problems = [f"{number}.dcm: the pixel data differ" for number in range(20)]
    check = files_check(30, [*problems, "7.dcm: the file has another size"])
    assert check.figure == 21
    assert check.message == (
        "0.dcm and 19 other files: the pixel data differ; 7.dcm: the file has another size"
    )


def test_files_without_a_problem_pass() -> None:
    """The message says how many were compared."""
    check = files_check(3, [])
    assert check.passed
    assert check.message == "3 files hold the expected differences and no others"
