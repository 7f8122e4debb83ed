"""The pack as ComfyUI imports it: the repository's root as a package under a name of its own.

Its engine is the same one that the other tests import, so that there is one of each class.
"""

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
NAME = "live2diff_pack"
ENGINE = "live2diff_core"


class _SharedEngine(MetaPathFinder, Loader):
    """Answers for `live2diff_pack.live2diff_core` with `live2diff_core`."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.startswith(f"{NAME}.{ENGINE}") else None

    def create_module(self, spec):
        self.own = importlib.import_module(spec.name.removeprefix(f"{NAME}."))
        self.own_spec = self.own.__spec__
        return self.own

    def exec_module(self, module):
        module.__spec__ = self.own_spec


def load_pack() -> ModuleType:
    """Import the repository's root as a package, once."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    sys.meta_path.insert(0, _SharedEngine())
    spec = importlib.util.spec_from_file_location(
        NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def pack_module(name: str) -> ModuleType:
    """A module of the pack, such as `nodes.host`."""
    load_pack()
    return importlib.import_module(f"{NAME}.{name}")
