"""Rules of style that no linter knows."""

import ast
import re

from tests.architecture.sources import files_with_tests, functions, modules, tree


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        each is None or (isinstance(each, ast.Name) and each.id in {"Exception", "BaseException"})
        for each in caught
    )


def test_only_the_boundary_catches_everything() -> None:
    """There is one broad except in the whole project, in lifecycle."""
    handlers = {
        name: [node for node in ast.walk(tree(file)) if isinstance(node, ast.ExceptHandler)]
        for name, file in modules().items()
    }
    assert [
        name for name, found in handlers.items() for handler in found if _is_broad(handler)
    ] == ["ctdeface_shared.lifecycle"]


def test_only_the_command_line_prints() -> None:
    """Only commands.main calls print."""
    names = {
        module: {node.id for node in ast.walk(tree(file)) if isinstance(node, ast.Name)}
        for module, file in modules().items()
    }
    assert [module for module, used in names.items() if "print" in used] == [
        "ctdeface_shared.commands.main"
    ]


def test_nothing_is_global() -> None:
    """No function rebinds a module's name."""
    assert not [
        name
        for name, file in modules().items()
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Global)
    ]


def test_no_module_has_a_name_that_says_nothing() -> None:
    """There is no utils, helpers, common or manager."""
    assert not [
        name
        for name in modules()
        if {"utils", "helpers", "common", "manager"} & set(name.split("."))
    ]


def test_every_exception_to_a_rule_has_its_reason() -> None:
    """No check is switched off on a line without naming the check and saying why."""
    switched = re.compile(r"#\s*(noqa|type:\s*ignore)(?P<rest>.*)")
    reasoned = re.compile(
        r"(: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)*|\[[a-z-]+(, ?[a-z-]+)*\])\s+(# )?\S.{6,}"
    )
    lines = [
        (file, line)
        for file in [*modules().values(), *files_with_tests()]
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    found = [
        (file.name, match)
        for file, line in lines
        if "re.compile" not in line and (match := switched.search(line))
    ]
    assert not [
        f"{name}: {match.group()}" for name, match in found if not reasoned.match(match["rest"])
    ]


def test_every_test_says_in_one_line_what_holds() -> None:
    """Each test has a docstring of exactly one line."""
    tests = [
        (file.name, function)
        for file in files_with_tests()
        for function in functions(file)
        if function.name.startswith("test_")
    ]
    assert not [
        f"{file}:{test.name}"
        for file, test in tests
        if len((ast.get_docstring(test) or "\n").splitlines()) != 1
    ]
