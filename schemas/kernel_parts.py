"""Parts of kernels, compiled for linking only.

Numba optimises every function, makes machine code of it and links it into each caller, where it is
optimised and made machine code again: on every level of a deep tree of calls anew. Nothing but a
kernel calls its parts, so that theirs is kept as it was translated: the kernel above links all of
them and goes through the optimiser once. That halves the time that books take to compile.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import binding
from numba.core import codegen, compiler

#: Variables of LLVM that hold a function's environment; numba sets them when it loads a function.
_ENVIRONMENT: Final = "_ZN08NumbaEnv"


class _PartLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]
    """A function's code for its callers; the machine code beside it has no function."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        whole: Any = self._final_module
        kept = [v.name for v in whole.global_variables if v.name.startswith(_ENVIRONMENT)]
        for function in whole.functions:
            if not function.is_declaration and function.linkage == binding.Linkage.external:
                function.linkage = "linkonce_odr"
        self._shared_module = whole
        lines = (f"@{name} = common local_unnamed_addr global i8* null" for name in kept)
        self._final_module = binding.parse_assembly("\n".join(lines))
        self._final_module.name = whole.name
        self._final_module.triple = whole.triple
        self._final_module.data_layout = whole.data_layout
        super()._finalize_final_module()  # type: ignore[no-untyped-call]


class _KernelLibrary(codegen.JITCodeLibrary):  # type: ignore[misc]
    """A kernel with its parts, which are its own: nobody else links to them here."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == binding.Linkage.linkonce_odr:
                function.linkage = "internal"
        super()._optimize_final_module()  # type: ignore[no-untyped-call]


class KernelCompiler(compiler.Compiler):  # type: ignore[misc]
    """Numba's pipeline into a library of ours."""

    library: type[codegen.JITCodeLibrary] = _KernelLibrary

    def compile_extra(self, func: Any) -> Any:
        """Translate a Python function."""
        library = self.library(self.state.targetctx.codegen(), func.__qualname__)
        library.enable_object_caching()
        self.state.library = library
        return super().compile_extra(func)  # type: ignore[no-untyped-call]


class PartCompiler(KernelCompiler):
    """The same for a part."""

    library = _PartLibrary
