"""What graders and libraries held when they were loaded into a kernel, and what has been replaced since."""

import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import FunctionType, ModuleType

__all__ = []

_GRADERS = "dit_nb.teach."
_TOOLS = ("builtins", "inspect", "json", "math", "signal")  # modules of Python that graders use
_CHANGING = {"input"}  # builtins that a kernel replaces itself
_SHOWN = {"__repr__", "__str__"}  # how tensors are printed: no check uses it
_GONE = object()
_loaded: dict[str, tuple[ModuleType, dict[str, object]]] = {}  # name -> module, and what it held
_libraries: dict[str, dict[str, object]] = {}  # name of a part of PyTorch or NumPy -> what it held


def _remember_graders() -> None:
    """Remember what the graders' modules hold, now or as soon as they are loaded, and what PyTorch holds."""
    from dit_nb.teach.graders.framework.originals import _contents as _held  # loads PyTorch

    _libraries.update({name: old for name, old in _held().items() if name not in _TOOLS})
    for name, module in list(sys.modules.items()):
        if name.startswith(_GRADERS) or name in _TOOLS:
            _remember(module)
    sys.meta_path.insert(0, _Watcher())


class _Watcher:
    """Finder of modules that remembers what the graders' modules hold once they are loaded."""

    def find_spec(self, name: str, path=None, target=None):
        """Return what another finder finds; None for modules that are no graders."""
        if not name.startswith(_GRADERS):
            return None
        others = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        spec = next((found for f in others if (found := f.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _remember(module)

            spec.loader.exec_module = exec_module
        return spec


def _remember(module: ModuleType) -> None:
    _loaded[module.__name__] = (module, dict(_contents(module)))


def _contents(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield name and value of all that a module holds, and of what its functions and classes are made of."""
    for key, value in list(vars(module).items()):
        if module.__name__ in _TOOLS:
            if (
                callable(value)
                and key not in _CHANGING
                and getattr(value, "__module__", "") == module.__name__
            ):
                yield key, value
        elif not key.startswith("__"):
            yield from _parts(key, value)
            if is_dataclass(value) or isinstance(value, type) and value.__module__ == module.__name__:
                for name, part in list(getattr(value, "__dict__", {}).items()):
                    if not name.startswith("__") or callable(part):
                        yield from _parts(f"{key}.{name}", part)


def _parts(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield a value, and the code and defaults of a function."""
    yield name, value
    function = value.fget if isinstance(value, property) else getattr(value, "__wrapped__", value)
    if isinstance(function, FunctionType):
        yield f"{name}.__code__", function.__code__
        yield f"{name}.__defaults__", function.__defaults__


def _is_of_library(value: object) -> bool:
    """Whether a function is written in a file that is not the student's: torch replaces some of Python's own."""
    code = getattr(value, "__code__", None)
    return code is not None and (path := Path(code.co_filename)).is_file() and Path.cwd() not in path.parents


def _replaced_names() -> list[str]:
    """Return names of graders, and of what they use of Python, that no longer have their first value."""
    found = _replaced_in_libraries()
    for name, (module, before) in _loaded.items():
        if sys.modules.get(name) is not module:
            found.append(name)
        now, short = dict(_contents(module)), name.removeprefix(_GRADERS)
        keys = {key for key, value in before.items() if now.get(key, _GONE) is not value}
        keys -= {key for key in keys if name in _TOOLS and _is_of_library(vars(module).get(key))}
        found += [f"{short}.{key}" for key in keys if key.rpartition(".")[0] not in keys]
    return sorted(found)


def _replaced_in_libraries() -> list[str]:
    """Return names of PyTorch and NumPy that no longer have their first value, unless a library has set them."""
    if not _libraries:
        return []
    from dit_nb.teach.graders.framework.originals import _SPACES, _replaced

    found = []
    for key, old in _libraries.items():
        own = vars(_SPACES[key])
        names = [name for name in _replaced(_SPACES[key], old) if name not in _SHOWN]
        found += [f"{key}.{n}" for n in names if key == "torch.Tensor" or not _is_of_library(own.get(n))]
    return found
