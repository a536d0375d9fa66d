"""The house rules, as tests: who may import what, what stays pure, how long things are, what must be said.

A rule that only people know is kept until somebody is in a hurry. Each failure names the place, the rule and
what to use instead. The code is read with `ast`, never imported.
"""

import ast
import fnmatch
import itertools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("protocol", "supervisor", "workers")

LAYERS = (
    ("protocol",),
    ("supervisor",),  # the package itself: its version
    ("supervisor.policy",),
    ("supervisor.values", "supervisor.recipes", "supervisor.kinds", "supervisor.parts", "supervisor.settings"),
    ("supervisor.naming", "supervisor.walk"),
    ("supervisor.config",),
    ("supervisor.mechanism",),
    ("supervisor.opening",),
    ("supervisor.loop",),
    ("supervisor.gateway",),
    ("supervisor.cli",),
    ("supervisor.pressure",),
    ("supervisor.embedded",),
    ("supervisor.__main__",),
)
"""From the bottom up; a module may import its own layer and those below it."""

LAZILY = frozenset({("supervisor", "supervisor.embedded")})
"""Names that a package gives on demand: who does not ask for them never imports what lies above."""

FACADES = {("supervisor", "supervisor.embedded")}
"""A package that hands out something from above, imported when it is asked for."""

OWNERS: dict[str, tuple[tuple[str, ...], str]] = {
    "zmq": (("protocol/sockets.py",), "open sockets with protocol.sockets; its types are there too"),
    "sqlite3": (
        ("supervisor/mechanism/journal/", "supervisor/mechanism/cache/"),
        "ask supervisor.mechanism.journal, or supervisor.mechanism.cache",
    ),
    "psutil": (("supervisor/mechanism/memory/",), "ask supervisor.mechanism.memory"),
    "multiprocess": (("supervisor/mechanism/processes.py",), "start workers with supervisor.mechanism.processes"),
    "PIL": (("workers/",), "only workers decode images"),
    "pyvips": (("workers/images/with_vips.py",), "decode with workers.images.with_vips"),
    "tqdm": (("supervisor/cli/",), "show progress with supervisor.cli.tell.Bar"),
    "tomllib": (("supervisor/config.py",), "read settings with supervisor.config"),
    "orjson": (
        ("supervisor/cli/output.py", "supervisor/mechanism/journal/"),
        "print with supervisor.cli.output.print_json; messages are coded by protocol.codec",
    ),
    "numpy": (
        (
            "workers/operations/embed.py",
            "workers/operations/ocr.py",
            "workers/text.py",
            "supervisor/mechanism/vectors/",
        ),
        "it is an extra: models take it, and supervisor.mechanism.vectors searches what they give",
    ),
    "onnxruntime": (("workers/onnx.py",), "it is an extra: models are run by workers.onnx"),
    "cv2": (("workers/text.py",), "it comes with the extra ocr; images are decoded by workers.images alone"),
    "matplotlib": (
        ("supervisor/cli/history_plot.py",),
        "it is an extra: pictures of memory are drawn by supervisor.cli.history_plot",
    ),
    "logging": (("workers/heard.py",), "say it with a Note (policy) or supervisor.mechanism.log"),
    "subprocess": (
        (
            "supervisor/cli/",
            "supervisor/mechanism/alerts.py",
            "supervisor/mechanism/parts.py",
            "workers/operations/trespass.py",
        ),  # the last tries whether the sandbox stops it
        "workers are started by supervisor.mechanism.processes, other processes by supervisor.mechanism.parts",
    ),
    "starlette": (("supervisor/gateway/",), "HTTP is the gateway's, a process of its own"),
    "uvicorn": (("supervisor/gateway/server.py",), "HTTP is served by supervisor.gateway.server"),
    "python_multipart": (("supervisor/gateway/uploads.py",), "uploads are read by supervisor.gateway.uploads"),
    "asyncio": (
        ("supervisor/gateway/", "workers/cleanup.py"),
        "only the gateway waits for many at once",
    ),
    "multiprocessing": ((), "use supervisor.mechanism.processes, which has the warm template"),
    "pickle": (
        ("supervisor/embedded.py", "workers/operations/function.py"),  # a function of the caller, in a private file
        "what crosses a process border is a message of protocol.messages",
    ),
    "dill": (("supervisor/embedded.py",), "multiprocess uses it by itself; what crosses a process border is a message"),
}
"""Module: (files that may import it, what everybody else uses instead)."""

PURE_IMPORTS = frozenset(
    ["base64", "bisect", "collections", "enum", "functools", "hashlib", "heapq", "itertools", "math", "msgspec",
     "operator", "protocol", "random", "re", "signal", "statistics", "struct", "supervisor", "typing", "zlib"]
)  # fmt: skip
PURE_PROTOCOL = frozenset({"protocol", "protocol.messages", "protocol.errors", "protocol.paths", "protocol.launch"})
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__", "breakpoint"})
PRINTERS = ("supervisor/cli/", "supervisor/mechanism/log.py", "workers/loop.py", "workers/entry.py",
            "workers/specimens.py", "workers/template.py")  # fmt: skip

MODULES = {"pyzmq": "zmq", "pillow": "PIL", "opencv-python-headless": "cv2"}
"""Packages whose module is called otherwise."""
LOADED_BY_NAME = frozenset({"pyvips_binary", "pi_heif", "rapidocr"})
"""pyvips and workers.images.heif load theirs by name, plugins that a user may replace; rapidocr brings models."""

FILE_LINES, FUNCTION_LINES = 450, 70

TOP_LEVEL = frozenset(
    [".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "deploy", "protocol", "pyproject.toml", "supervisor",
     "tests", "workers"]
)  # fmt: skip
TEXTS = ("*.py", "*.md", "*.toml", "*.service", "*.yml", "*.yaml", "*.conf", "run", "Dockerfile*", ".gitignore")
MARKS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
FOREIGN_PATHS = re.compile(r"(?<![\w.$~])/(?:ro" + r"ot/|wo" + r"rk/|tm" + r"p/lab)")


class Import(NamedTuple):
    """One import: where, and the module in full."""

    line: int
    module: str


class Source(NamedTuple):
    """One file of ours, parsed."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def imports(self) -> Iterator[Import]:
        """Yields its imports, those inside functions too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (Import(node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: a relative import; write the full name"
                assert node.module is not None
                for alias in node.names:  # `from package import module` imports that module
                    full = f"{node.module}.{alias.name}"
                    yield Import(node.lineno, full if is_module(full) else node.module)


def is_module(name: str) -> bool:
    """Tells whether a dotted name is a module of ours."""
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Returns every Python file below these folders, parsed."""
    found = []
    for folder in folders or (*CODE, "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text("utf-8")
            found.append(Source(str(path.relative_to(ROOT)), text, ast.parse(text)))
    assert found, folders
    return tuple(found)


def report(faults: list[str]) -> None:
    """Fails with every fault, one a line."""
    assert not faults, "\n" + "\n".join(faults)


def layer_of(module: str) -> int:
    """Returns the number of a module's layer, the longest name that fits."""
    fitting = [
        (len(name), number)
        for number, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    return max(fitting)[1]


def test_supervisor_and_workers_never_import_each_other_and_protocol_none_of_ours() -> None:
    forbidden = {"protocol": ("supervisor", "workers"), "supervisor": ("workers",), "workers": ("supervisor",)}
    report([
        f"{source.path}:{found.line}: imports {found.module}; the wire is the only bond: put what both need in protocol"
        for source in sources(*CODE)
        for found in source.imports()
        if found.module.split(".")[0] in (*forbidden[source.module.split(".")[0]], "tests")
    ])  # fmt: skip


def test_imports_go_downward_only() -> None:
    report([
        f"{source.path}:{found.line}: imports {found.module}, which lies above it; hand in what it needs as an "
        "argument, or move it down"
        for source in sources("supervisor", "protocol")
        for found in source.imports()
        if found.module.split(".")[0] in ("supervisor", "protocol")
        and layer_of(found.module) > layer_of(source.module)
        and (source.module, found.module) not in FACADES
        and (source.module, found.module) not in LAZILY
    ])  # fmt: skip


def test_policy_is_pure() -> None:
    faults = []
    for source in sources("supervisor/policy"):
        for found in source.imports():
            top = found.module.split(".")[0]
            ours = found.module in PURE_PROTOCOL or found.module.startswith("supervisor.policy")
            if top not in PURE_IMPORTS or (top in ("protocol", "supervisor") and not ours):
                faults.append(
                    f"{source.path}:{found.line}: imports {found.module}; policy decides only: `now` and samples are "
                    "arguments, what is to be done is a Command, what is to be said a Note"
                )
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                faults.append(f"{source.path}:{node.lineno}: calls {node.func.id}; return a Command instead")
            if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
                faults.append(f"{source.path}:{node.lineno}: imports random; a Random is handed in")
            if isinstance(node, ast.AsyncFunctionDef | ast.Await):
                faults.append(f"{source.path}:{node.lineno}: is asynchronous; the loop waits, policy never does")
            if isinstance(node, ast.ImportFrom) and node.module == "random":
                faults += [
                    f"{source.path}:{node.lineno}: imports random.{alias.name}; a Random is handed in"
                    for alias in node.names
                    if alias.name != "Random"
                ]
    report(faults)


def test_each_impure_module_has_one_owner() -> None:
    faults = []
    for source in sources(*CODE):
        for found in source.imports():
            owners, instead = OWNERS.get(found.module.split(".")[0], ((source.path,), ""))
            if not source.path.startswith(owners or "/"):
                owner = " and ".join(owners) or "nobody"
                faults.append(f"{source.path}:{found.line}: imports {found.module}, owned by {owner}; {instead}")
    report(faults)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    for_tests, for_benchmarks = ({_module(one) for one in extras.pop(name)} for name in ("test", "bench"))
    declared = {_module(one) for one in [*project["dependencies"], *itertools.chain(*extras.values())]}
    used = {found.module.split(".")[0] for source in sources(*CODE) for found in source.imports()}
    third_party = used - sys.stdlib_module_names - set(CODE)
    assert third_party - LOADED_BY_NAME == declared - LOADED_BY_NAME, "pyproject.toml and the imports disagree"
    used_by_tests = {found.module.split(".")[0] for source in sources("tests") for found in source.imports()}
    # Peers of the benchmarks are optional: those that are not installed are named as missing.
    ours = set(CODE) | {"tests"} | declared | for_tests | for_benchmarks
    unknown = used_by_tests - sys.stdlib_module_names - ours
    assert not unknown, f"tests import {sorted(unknown)}: add them to the test extra"


def _module(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found is not None
    return MODULES.get(found[0], found[0].replace("-", "_"))


def test_only_the_command_line_and_the_log_print() -> None:
    report([
        f"{source.path}:{node.lineno}: prints; return a value, make a Note, or use supervisor.mechanism.log"
        for source in sources(*CODE)
        if not source.path.startswith(PRINTERS)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ])  # fmt: skip


def test_everything_public_says_what_it_is() -> None:
    faults = []
    for source in sources(*CODE):
        if source.text.strip() and not ast.get_docstring(source.tree):
            faults.append(f"{source.path}:1: the module has no docstring; say why it is there")
        for name, node in _public(source.tree.body):
            if not ast.get_docstring(node):
                faults.append(f"{source.path}:{node.lineno}: {name} has no docstring; say what it returns and raises")
    for source in sources("tests"):
        if os.path.basename(source.path).startswith("test_") and not ast.get_docstring(source.tree):
            faults.append(f"{source.path}:1: the test module has no docstring; say what it tries")
    report(faults)


def _public(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield within + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{node.name}.")


def test_files_and_functions_are_for_one_sitting() -> None:
    faults = []
    for source in sources():
        lines, limit = source.text.count("\n"), FILE_LINES
        if lines > limit:
            faults.append(f"{source.path}: {lines} lines, at most {limit}; if it needs 'and' to be described, split it")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    faults.append(
                        f"{source.path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}; "
                        "parents branch, leaves compute"
                    )
    report(faults)


def test_tests_wait_on_facts_never_for_a_time() -> None:
    report([
        f"{source.path}:{node.lineno}: sleeps; wait for the fact it hopes for, with a deadline"
        for source in sources("tests")
        if os.path.basename(source.path).startswith("test_")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
    ])  # fmt: skip


def _texts() -> Iterator[tuple[str, str]]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name != ".git" and not is_ignored(name + "/")]
        for name in names:
            if any(fnmatch.fnmatch(name, pattern) for pattern in TEXTS):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, ROOT), Path(path).read_text("utf-8")


def test_nothing_is_put_off_and_no_path_of_one_machine_is_written_down() -> None:
    faults = []
    for path, text in _texts():
        for number, line in enumerate(text.splitlines(), start=1):
            if MARKS.search(line):
                faults.append(f"{path}:{number}: put off; do it now, or open an issue")
            if FOREIGN_PATHS.search(line):
                faults.append(f"{path}:{number}: a path of one machine; find it at run time or take it as a setting")
    report(faults)


@cache
def _ignored() -> tuple[str, ...]:
    return tuple((ROOT / ".gitignore").read_text("utf-8").split())


def is_ignored(name: str) -> bool:
    """Tells whether .gitignore names it; directories end with a slash."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in _ignored())


def test_the_top_level_is_the_house_and_nothing_else() -> None:
    found = {
        entry.name
        for entry in os.scandir(ROOT)
        if entry.name != ".git"
        and not is_ignored(entry.name + "/" * entry.is_dir())
        and not (entry.is_dir() and not os.listdir(entry))  # git holds no empty directories
    }
    assert found == TOP_LEVEL, f"not in the house: {sorted(found - TOP_LEVEL)}; missing: {sorted(TOP_LEVEL - found)}"


def test_the_readme_and_ci_run_the_same_test_command() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"^ *(python3 -m venv .*pytest)$", readme, re.MULTILINE)
    assert found is not None, "README.md has no line 'python3 -m venv ... pytest'"
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    run = " && ".join(line for line in lines if line.startswith(("python3", '"$environment/')))
    run = run.replace('"$environment"', ".venv").replace('"$environment/', ".venv/").replace('" ', " ")
    run = re.sub(r" --quiet| --disable-pip-version-check", "", run).removesuffix(' "$@"')
    assert run == found[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("command", "cure"),
    [
        (("ruff", "check", "--no-cache"), "ruff check --fix"),
        (("ruff", "format", "--check", "--no-cache"), "ruff format"),
        (("mypy",), "mend the types"),
    ],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_the_checkers_are_content(command: tuple[str, ...], cure: str, tmp_path: Path) -> None:
    extra = ("--cache-dir", str(tmp_path)) if command == ("mypy",) else ()
    ended = subprocess.run([sys.executable, "-m", *command, *extra], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}\ncure: {cure}"
