"""The house rules, held by the AST of every file: floors, purity, sizes, and what must not occur anywhere."""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "mmd": 0,  # the version
    "mmd.domain": 1,
    "mmd.core": 2,
    "mmd.core.machine": 3,
    "mmd.core.portfolio": 3,
    "mmd.exchanges": 3,  # the protocol between shell and exchanges, and their session; each exchange stands above it
    "mmd.exchanges.*": 4,
    "mmd.config": 4,
    "mmd.journal": 3,
    "mmd.replay": 4,
    "mmd.sandbox": 4,
    "mmd.shell": 5,
    "mmd.control": 6,
    "mmd.cli": 7,
}
"""Rooms and their floors: imports point to a lower floor or stay in the room."""

SHARED = frozenset(f"mmd.exchanges.{path.stem}" for path in (ROOT / "mmd/exchanges").glob("*.py"))
"""What all exchanges use; every folder below mmd.exchanges is an exchange of its own."""

MUST_NOT_KNOW = {
    "mmd.config": r"trio\b",
    "mmd.core": r"mmd\.exchanges\b",
    "mmd.core.machine": r"mmd\.exchanges\b",
    "mmd.core.portfolio": r"mmd\.exchanges\b",
    "mmd.journal": r"mmd\.core\b",
    "mmd.replay": r"(trio\b|mmd\.(config|exchanges|sandbox)\b)",
    "mmd.control": r"mmd\.core\b",
    "mmd.exchanges": r"mmd\.core\.(?!budget\b)",
    "mmd.exchanges.*": r"mmd\.core\.(quoting|fair|plan|gate|machine|portfolio)\b",
    "mmd.shell": r"mmd\.exchanges\.\w+\.(messages|codec)\b",
    "mmd.cli": r"mmd\.exchanges\.(?!api\b)\w+",
}
"""What a room may not import although it lies below."""

PURE = ("mmd.domain", "mmd.core")
IMPURE_IMPORTS = frozenset(
    {
        "asyncio",
        "concurrent",
        "datetime",
        "http",
        "httpx",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
        "selectors",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "trio",
        "trio_websocket",
        "urllib",
        "uuid",
        "websockets",
    }
)
# Rounded in one way only, everywhere; other functions differ in the last digit between C libraries (ADR 18).
SAME_EVERYWHERE = frozenset(
    {
        "ceil",
        "copysign",
        "factorial",
        "floor",
        "frexp",
        "fsum",
        "inf",
        "isfinite",
        "isnan",
        "ldexp",
        "nan",
        "pi",
        "sqrt",
    }
)
IMPURE_CALLS = frozenset({"open", "input", "print", "id", "hash"})  # id and hash differ from process to process

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
SUPERVISORS = ("mmd.shell.pump", "mmd.replay.replayer")  # the second repeats what the first did
"""The one module that may catch everything: it halts the symbol whose machine raised."""
GATE = "mmd.core.gate"
WITHDRAWAL_FIELD = "available_withdrawal_funds"
"""A number in an exchange's account summary; the only use of the word."""


class Module:
    """One source file."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.tree = ast.parse(text)
        self.docstrings = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }

    @property
    def in_pure_room(self) -> bool:
        return self.name.startswith(PURE)


def load(folder: str) -> list[Module]:
    """Every Python file below a folder of the repository."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Module(".".join(parts).removesuffix(".__init__"), path.read_text()))
    return found


def room(module: str) -> str:
    """The room a module of ours lives in; KeyError for a folder that has no floor."""
    if module in SHARED:
        return "mmd.exchanges"
    parts = module.split(".")
    if module.startswith("mmd.exchanges.") and len(parts) > 2:
        return ".".join(parts[:3])
    if module in FLOORS:
        return module
    name = ".".join(parts[:2])
    if name not in FLOORS:
        raise KeyError(f"{module}: this room has no floor")
    return name


def rule_name(room_name: str) -> str:
    """The key of a room in the tables: every exchange has the same."""
    return "mmd.exchanges.*" if room_name.startswith("mmd.exchanges.") else room_name


def imports(module: Module, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, imported module) for every import anywhere in the file, TYPE_CHECKING and functions included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
                continue
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in known else base


# --- rules: a module in, findings out ------------------------------------------------------------

Rule = Callable[[Module, frozenset[str]], Iterator[str]]


def imports_point_down(module: Module, known: frozenset[str]) -> Iterator[str]:
    here = room(module.name)
    for line, target in imports(module, known):
        where = f"{module.name}:{line}"
        if target.startswith("."):
            yield f"{where}: relative import {target}"
            continue
        forbidden = MUST_NOT_KNOW.get(rule_name(here))
        if forbidden and re.match(forbidden, target):
            yield f"{where}: {here} must not know {target}"
        if target.split(".")[0] != "mmd":
            continue
        there = room(target)
        if there == here:
            continue
        if FLOORS[rule_name(there)] >= FLOORS[rule_name(here)]:
            yield f"{where}: {here} imports {target}, which is not below it"


def nothing_is_imported_by_name(module: Module, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and called(node) in ("__import__", "import_module"):
            yield f"{module.name}:{node.lineno}: an import the house test cannot see"


def core_is_pure(module: Module, known: frozenset[str]) -> Iterator[str]:
    if not module.in_pure_room:
        return
    for line, target in imports(module, known):
        if target.split(".")[0] in IMPURE_IMPORTS:
            yield f"{module.name}:{line}: imports {target}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{module.name}:{node.lineno}: waits"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield f"{module.name}:{node.lineno}: calls {node.func.id}"


def is_whole(node: ast.expr) -> bool:
    """Whether this is an integer as it is written."""
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def arithmetic_is_the_same_everywhere(module: Module, known: frozenset[str]) -> Iterator[str]:
    if not module.in_pure_room:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("math", "cmath"):
            if node.attr not in SAME_EVERYWHERE:
                yield f"{module.name}:{node.lineno}: math.{node.attr}, use core.exact"
        elif isinstance(node, ast.ImportFrom) and node.module in ("math", "cmath"):
            yield f"{module.name}:{node.lineno}: import math whole, so that this rule sees what is used"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not is_whole(node.left):
            yield f"{module.name}:{node.lineno}: a power of what may be a float"


def functions_fit_a_screen(module: Module, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{module.name}:{node.lineno}: {node.name} has {lines} lines"


def files_fit_a_sitting(module: Module, known: frozenset[str]) -> Iterator[str]:
    lines = len(module.text.splitlines())
    if lines > FILE_LINES_MAX:
        yield f"{module.name}: {lines} lines"


def files_say_their_subject(module: Module, known: frozenset[str]) -> Iterator[str]:
    if not module.text.strip():
        return
    docstring = ast.get_docstring(module.tree, clean=False)
    if not docstring or not docstring.splitlines()[0].strip():
        yield f"{module.name}: the first line is no docstring"


def names_in(node: ast.expr | None) -> Iterator[str]:
    """Last parts of the exception names in an `except` clause."""
    for part in node.elts if isinstance(node, ast.Tuple) else [node]:
        if isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Name):
            yield part.id


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether it only cleans up: the last thing it does, always, is to raise again what it caught."""
    last = handler.body[-1]
    leaves = any(isinstance(node, ast.Return | ast.Break | ast.Continue) for node in ast.walk(handler))
    return isinstance(last, ast.Raise) and last.exc is None and not leaves


def nothing_catches_everything(module: Module, known: frozenset[str]) -> Iterator[str]:
    if module.name in SUPERVISORS:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and not passes_on(node):
            if node.type is None:
                yield f"{module.name}:{node.lineno}: bare except"
            for name in names_in(node.type):
                if name in ("Exception", "BaseException", "Cancelled", "ExceptionGroup", "BaseExceptionGroup"):
                    yield f"{module.name}:{node.lineno}: except {name}"
        if isinstance(node, ast.Call) and called(node) == "suppress":
            for name in (name for argument in node.args for name in names_in(argument)):
                if name in ("Exception", "BaseException", "Cancelled"):
                    yield f"{module.name}:{node.lineno}: suppress({name})"


def called(node: ast.Call) -> str:
    """The last part of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def nothing_withdraws(module: Module, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        word = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in module.docstrings:
            word = node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            word = node.value.decode("latin-1")
        elif isinstance(node, ast.Name):
            word = node.id
        elif isinstance(node, ast.Attribute):
            word = node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            word = node.name
        elif isinstance(node, ast.keyword | ast.arg):
            word = node.arg or ""
        if "withdraw" in word.lower() and word != WITHDRAWAL_FIELD:
            yield f"{module.name}:{getattr(node, 'lineno', 0)}: {word[:40]!r}"


def only_the_gate_approves(module: Module, known: frozenset[str]) -> Iterator[str]:
    if module.name == GATE:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and called(node) == "Approved":
            yield f"{module.name}:{node.lineno}: makes an Approved"
        if isinstance(node, ast.alias) and node.name == "Approved" and node.asname:
            yield f"{module.name}:{node.lineno}: Approved under another name"


def nothing_is_left_for_later(module: Module, known: frozenset[str]) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), 1):
        if found := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"{module.name}:{number}: {found[0]}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield f"{module.name}:{node.lineno}: NotImplementedError"


def only_the_programs_print(module: Module, known: frozenset[str]) -> Iterator[str]:
    if module.name.startswith("mmd.cli"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{module.name}:{node.lineno}: print"


def suppressions_say_why(module: Module, known: frozenset[str]) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), 1):
        if "# type: ignore" in line and not re.search(r"# type: ignore\[[\w, -]+\]  # \S", line):
            yield f"{module.name}:{number}: type: ignore without code and reason"
        if "# noqa" in line and not re.search(r"# noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*\W+\w", line):
            yield f"{module.name}:{number}: noqa without code and reason"


def mock_time_is_asked_for_by_the_test(module: Module, known: frozenset[str]) -> Iterator[str]:
    """pytest-trio runs on a clock that is the test's own argument; one that only a fixture has is left lying."""
    clock = "autojump_clock"
    functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    wants = {node.name: {arg.arg for arg in node.args.args} for node in functions}
    fixtures = {node.name for node in functions if "fixture" in "".join(map(ast.dump, node.decorator_list))}
    on_mock_time = {name for name in fixtures if clock in wants[name]}
    for node in functions:
        if node.name.startswith("test_") and wants[node.name] & on_mock_time and clock not in wants[node.name]:
            yield f"{module.name}:{node.lineno}: {node.name} runs in real time: it does not take {clock}"


RULES: tuple[Rule, ...] = (
    imports_point_down,
    nothing_is_imported_by_name,
    core_is_pure,
    arithmetic_is_the_same_everywhere,
    functions_fit_a_screen,
    files_fit_a_sitting,
    files_say_their_subject,
    nothing_catches_everything,
    nothing_withdraws,
    only_the_gate_approves,
    nothing_is_left_for_later,
    only_the_programs_print,
    suppressions_say_why,
    mock_time_is_asked_for_by_the_test,
)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's algorithm, sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in graph[name]:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(found)


# --- the house -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house() -> list[Module]:
    return load("mmd")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Rule, house: list[Module]) -> None:
    known = frozenset(module.name for module in house)
    assert len(known) > 10
    assert [finding for module in house for finding in rule(module, known)] == []


def test_no_module_imports_itself_round_a_corner(house: list[Module]) -> None:
    known = frozenset(module.name for module in house)
    assert cycles({m.name: {target for _, target in imports(m, known) if target in known} for m in house}) == []


@pytest.mark.parametrize("folder", ["tests", "bench", "scripts"])
@pytest.mark.parametrize(
    "rule",
    [files_say_their_subject, suppressions_say_why, mock_time_is_asked_for_by_the_test],
    ids=lambda rule: rule.__name__,
)
def test_the_rest_of_the_repository_keeps(rule: Rule, folder: str) -> None:
    modules = [module for module in load(folder) if module.name != "tests.test_house"]
    assert [finding for module in modules for finding in rule(module, frozenset())] == []


# --- the lock file -------------------------------------------------------------------------------


def lock_blocks() -> dict[str, str]:
    """Package name, normalised, to its lines in requirements.lock."""
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    return {normal(block): block for block in blocks}


def normal(requirement: str) -> str:
    """The package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def test_the_lock_pins_every_dependency_by_hash_and_names_no_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], "wheel"]
    wanted += [name for group in project["project"]["optional-dependencies"].values() for name in group]
    blocks = lock_blocks()
    assert {normal(name) for name in wanted} <= blocks.keys()
    for name, block in blocks.items():
        assert re.match(r"[\w.-]+==\S+( ;[^\n]*)? \\\n    --hash=sha256:[0-9a-f]{64}", block), name
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_compiled_packages_are_locked_for_both_architectures() -> None:
    """A package with wheels per platform has many hashes; one hash would be this machine's own wheel."""
    blocks = lock_blocks()
    for name in ("msgspec", "pyyaml", "rpds-py", "pydantic-core", "regex"):
        assert blocks[name].count("--hash=") >= 12, name


# --- the rules can fail --------------------------------------------------------------------------

KNOWN = frozenset({"mmd.core", "mmd.core.gate", "mmd.core.machine", "mmd.core.portfolio", "mmd.exchanges.a.codec"})


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        pytest.param(imports_point_down, "mmd.core.plan", "import mmd.shell.pump", id="upwards"),
        pytest.param(imports_point_down, "mmd.core.plan", "from mmd.core import machine", id="up inside core"),
        pytest.param(imports_point_down, "mmd.core.machine", "from mmd.core import portfolio", id="sideways in core"),
        pytest.param(imports_point_down, "mmd.sandbox.x", "from mmd.config.load import f", id="sideways"),
        pytest.param(imports_point_down, "mmd.exchanges.a.x", "import mmd.exchanges.b.y", id="other exchange"),
        pytest.param(imports_point_down, "mmd.exchanges.a.x", "import mmd.core.quoting", id="exchange knows quoting"),
        pytest.param(imports_point_down, "mmd.exchanges.api", "import mmd.exchanges.a", id="protocol knows exchange"),
        pytest.param(imports_point_down, "mmd.domain.x", "import mmd.core", id="domain imports ours"),
        pytest.param(
            imports_point_down,
            "mmd.domain.x",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mmd.core",
            id="under TYPE_CHECKING",
        ),
        pytest.param(imports_point_down, "mmd.config.x", "def f():\n    import mmd.shell.pump", id="in a function"),
        pytest.param(imports_point_down, "mmd.config.x", "import trio", id="config knows trio"),
        pytest.param(imports_point_down, "mmd.control.x", "from mmd.core import gate", id="control knows rules"),
        pytest.param(imports_point_down, "mmd.cli.x", "from mmd.exchanges.a import codec", id="cli knows wire"),
        pytest.param(imports_point_down, "mmd.shell.x", "from mmd.exchanges.a import codec", id="shell knows wire"),
        pytest.param(imports_point_down, "mmd.core.x", "from . import gate", id="relative"),
        pytest.param(nothing_is_imported_by_name, "mmd.cli.x", "importlib.import_module('mmd.shell')", id="dynamic"),
        pytest.param(core_is_pure, "mmd.core.x", "import time", id="clock"),
        pytest.param(core_is_pure, "mmd.core.x", "from os import environ", id="environment"),
        pytest.param(core_is_pure, "mmd.core.options.x", "def f():\n    from random import random", id="chance"),
        pytest.param(core_is_pure, "mmd.domain.x", "async def f(): pass", id="async"),
        pytest.param(core_is_pure, "mmd.core.x", "open('x')", id="file"),
        pytest.param(arithmetic_is_the_same_everywhere, "mmd.core.x", "import math\nmath.exp(1.0)", id="libm"),
        pytest.param(arithmetic_is_the_same_everywhere, "mmd.core.x", "from math import sqrt", id="libm by name"),
        pytest.param(arithmetic_is_the_same_everywhere, "mmd.domain.x", "x ** 2", id="power"),
        pytest.param(functions_fit_a_screen, "mmd.core.x", "def f():\n" + "    pass\n" * 70, id="long function"),
        pytest.param(files_fit_a_sitting, "mmd.core.x", "x = 1\n" * 501, id="long file"),
        pytest.param(files_say_their_subject, "mmd.core.x", "x = 1", id="no docstring"),
        pytest.param(files_say_their_subject, "mmd.core.x", '"""\nlater"""', id="empty first line"),
        pytest.param(nothing_catches_everything, "mmd.cli.x", "try: f()\nexcept: pass", id="bare"),
        pytest.param(nothing_catches_everything, "mmd.cli.x", "try: f()\nexcept Exception: pass", id="broad"),
        pytest.param(
            nothing_catches_everything, "mmd.cli.x", "try: f()\nexcept (OSError, Exception): pass", id="among"
        ),
        pytest.param(nothing_catches_everything, "mmd.cli.x", "try: f()\nexcept* Exception: pass", id="group"),
        pytest.param(
            nothing_catches_everything, "mmd.shell.x", "try: f()\nexcept trio.Cancelled: pass", id="cancelled"
        ),
        pytest.param(
            nothing_catches_everything,
            "mmd.cli.x",
            "try: f()\nexcept BaseException:\n    if g(): return\n    raise",
            id="raises again but not always",
        ),
        pytest.param(nothing_catches_everything, "mmd.cli.x", "with suppress(Exception): f()", id="suppress"),
        pytest.param(nothing_withdraws, "mmd.exchanges.a.x", "call('private/withdraw')", id="method name"),
        pytest.param(nothing_withdraws, "mmd.exchanges.a.x", "def submit_Withdrawal(): pass", id="function"),
        pytest.param(nothing_withdraws, "mmd.exchanges.a.x", "client.withdraw()", id="attribute"),
        pytest.param(only_the_gate_approves, "mmd.shell.x", "Approved(order)", id="approves"),
        pytest.param(only_the_gate_approves, "mmd.shell.x", "actions.Approved(order)", id="approves by module"),
        pytest.param(only_the_gate_approves, "mmd.shell.x", "from mmd.domain.actions import Approved as A", id="alias"),
        pytest.param(nothing_is_left_for_later, "mmd.core.x", "x = 1  # TODO", id="later"),
        pytest.param(nothing_is_left_for_later, "mmd.core.x", "raise NotImplementedError", id="stub"),
        pytest.param(only_the_programs_print, "mmd.shell.x", "print(1)", id="print"),
        pytest.param(suppressions_say_why, "mmd.shell.x", "x = y  # type: ignore", id="bare ignore"),
        pytest.param(suppressions_say_why, "mmd.shell.x", "x = y  # type: ignore[arg-type]", id="no reason"),
        pytest.param(suppressions_say_why, "mmd.shell.x", "x = y  # noqa", id="bare noqa"),
        pytest.param(
            mock_time_is_asked_for_by_the_test,
            "tests.x",
            "@pytest.fixture\nasync def a(autojump_clock): ...\nasync def test_b(a): ...",
            id="real time",
        ),
    ],
)
def test_a_rule_finds_its_offender(rule: Rule, name: str, text: str) -> None:
    assert len(list(rule(Module(name, text), KNOWN))) == 1


INNOCENT = {
    "mmd.core.machine": '"""Withdrawn quotes."""\nfrom mmd.core import gate\nimport mmd.domain.events\nimport math',
    "mmd.core.gate": '"""Gate."""\nApproved(order)',
    "mmd.shell.pump": '"""Pump."""\ntry:\n    f()\nexcept Exception:\n    halt()',
    "mmd.exchanges.deribit.session": '"""Session."""\nimport trio\nimport mmd.exchanges.api\nimport mmd.core.book',
    "mmd.cli.mmd": '"""Words."""\nimport mmd.shell.daemon\nimport mmd.exchanges.api\nprint(1)',
    "mmd.shell.x": '"""X."""\ny = z  # type: ignore[arg-type]  # bad stub\nimport q  # noqa: F401 - registers',
    "mmd.exchanges.link": '"""Link."""\ntry:\n    f()\nexcept BaseException:\n    g()\n    raise',
    "mmd.sandbox": "",
}


@pytest.mark.parametrize("name", INNOCENT)
def test_the_rules_leave_the_innocent_alone(name: str) -> None:
    module = Module(name, INNOCENT[name])
    assert [finding for rule in RULES for finding in rule(module, KNOWN)] == []


def test_a_new_room_needs_a_floor() -> None:
    with pytest.raises(KeyError, match="no floor"):
        room("mmd.attic.x")


def test_cycles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "d"}, "e": set()}
    assert cycles(graph) == [["a", "b", "c"], ["d"]]
