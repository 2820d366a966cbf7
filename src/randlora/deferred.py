"""The import of PyTorch, PEFT and all that needs them, put off until somebody asks for a part of it.

`import randlora` promises that PEFT knows our methods, and that takes PEFT, which takes seconds to import. Nobody can
tell before PEFT is imported, so it is enough to keep the promise then: whatever asks first for PEFT, or for a part of
this package that stands on it, gets the whole package imported before, always in the same order.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LIGHT = frozenset({"cli", "deferred", "errors", "files", "messages", "__main__"})
"""The parts of the package that do without PyTorch."""


class Deferred(MetaPathFinder):
    """Stands at the head of `sys.meta_path` until it is needed once.

    Args:
        package: The package, of which all parts but `LIGHT` call for the import.
        trigger: A module of others that calls for it too.
        act: Imports what was put off.
    """

    def __init__(self, package: str, trigger: str, act: Callable[[], object]) -> None:
        self._package, self._trigger, self._act = package, trigger, act

    def install(self) -> None:
        """Wait for the first import; if the trigger is imported already, there is nothing to wait for."""
        if self._trigger in sys.modules:
            self._act()
        else:
            sys.meta_path.insert(0, self)

    def act(self) -> None:
        """Import what was put off, once."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._act()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module that calls for the import as the other finders do, and have it loaded by that import.

        To look for a module is not to import it: transformers asks so whether PEFT is installed.
        """
        package, _, part = name.partition(".")
        if name != self._trigger and not (package == self._package and part.partition(".")[0] not in LIGHT):
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._take_over(spec.loader, name)
        return spec

    def _take_over(self, loader: Loader, name: str) -> None:
        execute = loader.exec_module
        loaded: list[ModuleType] = []

        def create_module(_: ModuleSpec) -> ModuleType | None:
            self.act()
            if name not in sys.modules:  # the import that was put off did not take it along
                return None
            loaded.append(importlib.import_module(name))
            return loaded[0]

        def exec_module(module: ModuleType) -> None:
            if module not in loaded:
                execute(module)

        loader.create_module = create_module  # type: ignore[method-assign, assignment]
        loader.exec_module = exec_module  # type: ignore[method-assign]
