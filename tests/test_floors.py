"""The rules of the house, read from the syntax tree of every module of live2diff_core and nodes.

Each rule is a function from a Module to its violations; each is also run on a planted violation.
"""

import ast
import graphlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = "live2diff_core"
CORE = Path(__file__).resolve().parent.parent / PACKAGE
HOST = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "nodes",
    "server",
}
NODE_LINES = 25  # of the method that ComfyUI calls
MAX_LINES = 400
# "live/file.py:function" of handlers that may catch everything (a thread's edge).
BROAD_EXCEPT_ALLOWED: set[str] = {"live/failover.py:caught"}

GROUND = {"errors", "config", "frames", "memory", "schedule", "cache"}
MODELS = GROUND | {"models"}
ENGINE = MODELS | {"weights", "stream"}
# What a unit (a module or folder right under the package) may import, itself apart.
MAY_IMPORT: dict[str, set[str]] = {
    **{unit: GROUND for unit in GROUND},
    "models": GROUND,
    "weights": MODELS,
    "stream": MODELS,
    "live": ENGINE,
    "metrics": ENGINE,
    "training": ENGINE,
    "cli": ENGINE | {"live", "metrics", "training", "__init__"},
    "__init__": ENGINE | {"live"},
}


@dataclass(frozen=True)
class Module:
    path: PurePosixPath  # relative to the package
    source: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, str(self.path))

    @property
    def unit(self) -> str:
        return self.path.parts[0].removesuffix(".py")


MODULES = [
    Module(PurePosixPath(file.relative_to(CORE).as_posix()), file.read_text(encoding="utf-8"))
    for file in sorted(CORE.rglob("*.py"))
]


PACK = CORE.parent / "nodes"
NODES = [
    Module(PurePosixPath(file.relative_to(PACK).as_posix()), file.read_text(encoding="utf-8"))
    for file in sorted(PACK.rglob("*.py"))
]


def absolute_imports(module: Module) -> Iterator[tuple[int, str]]:
    """Line and top-level name of each absolute import."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, (node.module or "").partition(".")[0]


def imported_units(module: Module) -> Iterator[tuple[int, str]]:
    """Line and unit of each relative import; the unit of a name from the package top is __init__.

    Raises ValueError where an import climbs out of the package.
    """
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        climbed = len(module.path.parts) - node.level
        if climbed < 0:
            raise ValueError(f"{module.path}:{node.lineno} imports from outside the package")
        named = [node.module] if node.module else [alias.name for alias in node.names]
        for name in named:
            target = [*module.path.parts[:climbed], *name.split(".")]
            at_top = len(target) == 1 and node.module is None and target[0] not in MAY_IMPORT
            yield node.lineno, "__init__" if at_top else target[0]


def upward_imports(module: Module) -> list[str]:
    if module.unit not in MAY_IMPORT:
        return [f"{module.path} has no floor: add {module.unit} to MAY_IMPORT"]
    allowed = MAY_IMPORT[module.unit] | {module.unit}
    return [
        f"{module.path}:{line} imports {unit}"
        for line, unit in imported_units(module)
        if unit not in allowed
    ]


def host_imports(module: Module) -> list[str]:
    found = absolute_imports(module)
    return [f"{module.path}:{line} imports {name}" for line, name in found if name in HOST]


def self_imports(module: Module) -> list[str]:
    found = absolute_imports(module)
    return [f"{module.path}:{line} imports {name}" for line, name in found if name == PACKAGE]


def defaults(tree: ast.AST) -> Iterator[ast.expr]:
    """Defaults of arguments and of dataclass fields, and values given as `default=`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            yield from node.defaults
            yield from (default for default in node.kw_defaults if default is not None)
        elif isinstance(node, ast.ClassDef):
            fields = (item for item in node.body if isinstance(item, ast.AnnAssign))
            yield from (field.value for field in fields if field.value is not None)
        elif isinstance(node, ast.keyword) and node.arg == "default":
            yield node.value


def cuda_defaults(module: Module) -> list[str]:
    return [
        f"{module.path}:{node.lineno} defaults to {node.value!r}"
        for default in defaults(module.tree)
        for node in ast.walk(default)
        if isinstance(node, ast.Constant) and str(node.value).startswith("cuda")
    ]


def long_files(module: Module) -> list[str]:
    lines = len(module.source.splitlines())
    return [f"{module.path} has {lines} lines"] if lines > MAX_LINES else []


def is_broad(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        if node.type is None:
            return True
        caught = [node.type]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        caught = node.args
    else:
        return False
    names = (name for expression in caught for name in ast.walk(expression))
    return any(ast.unparse(name) in {"Exception", "BaseException"} for name in names)


def broad_excepts(module: Module) -> list[str]:
    """`path:function` of each handler that catches everything."""

    def visit(node: ast.AST, function: str) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if is_broad(node):
            yield f"{module.path}:{function}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return list(visit(module.tree, "<module>"))


def cycle(modules: list[Module]) -> list[str]:
    """The units of one import cycle, or nothing."""
    graph: dict[str, set[str]] = {}
    for module in modules:
        needs = {unit for _, unit in imported_units(module)} - {module.unit}
        graph.setdefault(module.unit, set()).update(needs)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def long_nodes(module: Module) -> list[str]:
    """Methods named by FUNCTION whose code, signature and docstring apart, is too long."""
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        named = {
            item.value.value
            for item in node.body
            if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "FUNCTION"
        }
        methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
        for method in (method for method in methods if method.name in named):
            lines = (method.end_lineno or 0) - method.body[0].end_lineno
            if lines > NODE_LINES:
                found.append(f"{module.path}:{method.name} has {lines} lines")
    return found


def violations(rule: Callable[[Module], list[str]], modules: list[Module] = MODULES) -> list[str]:
    return [found for module in modules for found in rule(module)]


def planted(path: str, source: str) -> Module:
    return Module(PurePosixPath(path), source)


def test_the_modules_are_found() -> None:
    assert PurePosixPath("errors.py") in {module.path for module in MODULES}


def test_imports_go_down() -> None:
    assert violations(upward_imports) == []


@pytest.mark.parametrize("rule", [self_imports, cuda_defaults, long_files, broad_excepts])
def test_nodes_keep_the_rules_of_the_core(rule) -> None:
    assert violations(rule, NODES) == []


def test_nodes_import_comfyui_in_one_place() -> None:
    found = violations(host_imports, NODES)
    assert {line.partition("/")[0] for line in found} == {"host"}


def test_nodes_are_thin() -> None:
    assert violations(long_nodes, NODES) == []


def test_no_import_cycle() -> None:
    assert cycle(MODULES) == []


def test_no_host_imports() -> None:
    assert violations(host_imports) == []


def test_imports_inside_the_package_are_relative() -> None:
    assert violations(self_imports) == []


def test_cuda_is_no_default() -> None:
    assert violations(cuda_defaults) == []


def test_files_are_short() -> None:
    assert violations(long_files) == []


def test_nothing_catches_everything() -> None:
    assert set(violations(broad_excepts)) == BROAD_EXCEPT_ALLOWED


LINE = "\n  1"
BAD = [
    (upward_imports, "errors.py", "from .models import unet"),
    (upward_imports, "cache.py", "from . import models"),
    (upward_imports, "cache.py", "def f():\n    from .live.runner import Runner"),
    (upward_imports, "models/unet.py", "from ..stream import session"),
    (upward_imports, "models/unet.py", "from .. import weights"),
    (upward_imports, "models/__init__.py", "from ..weights.load import load"),
    (upward_imports, "models/deep/unet.py", "from ...weights.load import load"),
    (upward_imports, "weights/load.py", "from ..stream.session import Session"),
    (upward_imports, "stream/session.py", "from ..weights.load import load"),
    (upward_imports, "stream/session.py", "from ..live.sources import Source"),
    (upward_imports, "live/runner.py", "from ..metrics import flicker"),
    (upward_imports, "live/runner.py", "from .. import __version__"),
    (upward_imports, "metrics/flicker.py", "from ..training import loss"),
    (upward_imports, "training/loop.py", "from ..metrics import flicker"),
    (upward_imports, "__init__.py", "from .cli import main"),
    (upward_imports, "__init__.py", "from .training import loop"),
    (upward_imports, "attic.py", ""),
    (host_imports, "live/sinks.py", "import comfy.utils"),
    (host_imports, "live/sinks.py", "from comfy.utils import x"),
    (host_imports, "cli.py", "def f():\n    import folder_paths"),
    (host_imports, "config.py", "import os, server"),
    (host_imports, "config.py", "from nodes import NODE_CLASS_MAPPINGS"),
    (self_imports, "cache.py", "import live2diff_core.errors"),
    (self_imports, "cache.py", "from live2diff_core.errors import ConfigError"),
    (cuda_defaults, "cache.py", "def f(device='cuda'): ..."),
    (cuda_defaults, "cache.py", "def f(*, device=torch.device('cuda:0')): ..."),
    (cuda_defaults, "cache.py", "f = lambda device='cuda': device"),
    (cuda_defaults, "config.py", "class C:\n    device: str = 'cuda'"),
    (cuda_defaults, "cli/main.py", "parser.add_argument('--device', default='cuda')"),
    (long_files, "cache.py", "\n" * (MAX_LINES + 1)),
    (host_imports, "warmup.py", "def f():\n    from comfy_api.input import VideoInput"),
    (long_nodes, "plan.py", f"class A:\n FUNCTION = 'f'\n def f(s):\n  0{(NODE_LINES + 1) * LINE}"),
    (broad_excepts, "cache.py", "try: ...\nexcept: ..."),
    (broad_excepts, "cache.py", "try: ...\nexcept Exception as e: ..."),
    (broad_excepts, "cache.py", "try: ...\nexcept (ValueError, BaseException): ..."),
    (broad_excepts, "cache.py", "with contextlib.suppress(Exception): ..."),
]
GOOD = [
    (upward_imports, "cache.py", "from .errors import ConfigError\nfrom . import frames"),
    (upward_imports, "models/__init__.py", "from .unet import UNet\nfrom ..cache import Cache"),
    (upward_imports, "models/unet.py", "from . import stream\nfrom .live import x"),
    (upward_imports, "training/loop.py", "from ..weights.save import save"),
    (upward_imports, "cli/main.py", "from .. import __version__, training\nfrom ..live import x"),
    (upward_imports, "cli.py", "from . import __version__\nfrom .metrics import flicker"),
    (upward_imports, "__init__.py", "def f():\n    from .stream.session import Session"),
    (host_imports, "live/runner.py", "from .server import Server\nimport torch.nodes"),
    (self_imports, "models/unet.py", "from ..errors import ConfigError"),
    (cuda_defaults, "cache.py", "def f(device): return device == 'cuda'"),
    (long_files, "cache.py", "\n" * MAX_LINES),
    (long_nodes, "plan.py", "class A:\n FUNCTION = 'f'\n def g(s):\n  0" + 99 * LINE),
    (broad_excepts, "cache.py", "try: ...\nexcept (OSError, ValueError): ..."),
    (broad_excepts, "cache.py", "with contextlib.suppress(KeyError): raise Exception"),
]


@pytest.mark.parametrize(("rule", "path", "source"), BAD)
def test_a_planted_violation_is_found(rule, path: str, source: str) -> None:
    assert len(rule(planted(path, source))) == 1


@pytest.mark.parametrize(("rule", "path", "source"), GOOD)
def test_what_is_allowed_passes(rule, path: str, source: str) -> None:
    assert rule(planted(path, source)) == []


def test_an_import_out_of_the_package_is_found() -> None:
    with pytest.raises(ValueError, match="outside the package"):
        upward_imports(planted("models/unet.py", "from ...nodes import x"))


def test_a_planted_cycle_is_found() -> None:
    there = planted("cache.py", "from .schedule import x")
    back = planted("schedule.py", "from . import config")
    closing = planted("config.py", "from .cache import x")
    assert cycle([there, back]) == []
    assert set(cycle([there, back, closing])) == {"cache", "schedule", "config"}


def test_a_broad_except_is_named_by_its_function() -> None:
    source = "class A:\n    def work(self):\n        try: ...\n        except Exception: ..."
    assert broad_excepts(planted("live/runner.py", source)) == ["live/runner.py:work"]
