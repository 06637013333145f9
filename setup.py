"""Builds the CPU kernel library `qontext/native/libqontext.so`; all else about the package stands in pyproject.toml.

The library is optional: without a working C++ compiler the install goes on, and `NOT_BUILT.txt` beside the Python files
says why. Each instruction set is one source file with its own flags; which one runs is chosen at run time.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src" / "qontext" / "native" / "src"
PACKAGE = Path("qontext") / "native"
LIBRARY = "libqontext.dylib" if sys.platform == "darwin" else "libqontext.so"
NOTE = "NOT_BUILT.txt"

COMMON = [
    "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics",
    "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing", "-ffp-contract=fast",
    "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-psabi", "-Wno-ignored-attributes",
]  # fmt: skip
AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mprfchw"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"]
AVX512_BF16 = [*AVX512, "-mavx512bf16", "-mavx512vnni", "-mavx512vbmi"]
AMX = [*AVX512_BF16, "-mamx-tile", "-mamx-bf16"]
# Instruction sets beyond the baseline, each built where the compiler knows its flags.
VARIANTS = {"avx2": AVX2, "avx512": AVX512, "avx512_bf16": AVX512_BF16, "amx": AMX}


class NotBuilt(Exception):
    """The library could not be built; the message says why."""


def find_compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, or the first of c++, g++, clang++ that is there."""
    if os.environ.get("CXX"):
        command = shlex.split(os.environ["CXX"])
        if shutil.which(command[0]):
            return command
        raise NotBuilt(f"the C++ compiler {command[0]!r} named by CXX was not found")
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise NotBuilt("no C++ compiler was found (c++, g++ or clang++, or one named by CXX)")


def run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotBuilt(f"{command[0]} did not start: {error}") from error
    if done.returncode:
        raise NotBuilt(f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}")


def build_library(out: Path, temporary: Path) -> None:
    """Compiles every source with its flags and links `out`. Raises NotBuilt."""
    if sys.platform == "win32":
        raise NotBuilt("the library is built with gcc or clang, on Linux and macOS only")
    compiler = find_compiler()
    out.parent.mkdir(parents=True, exist_ok=True)
    variants = {}
    if platform.machine() in ("x86_64", "AMD64"):
        empty = temporary / "empty.cpp"
        empty.write_text("")
        for name, flags in VARIANTS.items():
            try:
                run([*compiler, *COMMON, *flags, "-c", str(empty), "-o", str(temporary / "empty.o")])
            except NotBuilt:
                continue
            variants[name] = flags
    defines = [f"-DQX_HAVE_{name.upper()}" for name in variants]
    jobs = []
    for source in sorted(SOURCES.glob("*.cpp")):
        variant = source.stem.removeprefix("variant_")
        if source.stem.startswith("variant_") and variant != "generic" and variant not in variants:
            continue
        target = temporary / f"{source.stem}.o"
        flags = variants.get(variant, []) if source.stem.startswith("variant_") else []
        jobs.append((target, [*compiler, *COMMON, *flags, *defines, "-c", str(source), "-o", str(target)]))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(lambda job: run(job[1]), jobs))
    link = ["-shared", "-pthread"] + ([] if sys.platform == "darwin" else ["-Wl,--as-needed", "-Wl,-O1", "-s"])
    linked = temporary / out.name
    run([*compiler, *[str(target) for target, _ in jobs], *link, "-o", str(linked)])
    put_in_place(linked, out)


def put_in_place(fresh: Path, out: Path) -> None:
    """Copies `fresh` to `out` under another name first: `out` is the whole old file or the whole new one at any time.

    A process that has the old library mapped keeps it: its file lives on without a name.
    """
    beside = out.with_name(f"{out.name}.{os.getpid()}.new")
    try:
        shutil.copyfile(fresh, beside)
        shutil.copymode(fresh, beside)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


class BuildNative(build_ext):
    """`build_ext` for the one library, which is no Python extension module."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(PACKAGE / LIBRARY)

    def run(self) -> None:
        # Where the library goes in the end; `run` of the base class forgets `inplace` while it builds.
        self.places = [Path(self.build_lib) / PACKAGE]
        if self.inplace or self.editable_mode:
            self.places.append(SOURCES.parent)
        for place in self.places:
            (place / NOTE).unlink(missing_ok=True)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        try:
            # A folder of its own: two builds at once must not link each other's half-written objects.
            with tempfile.TemporaryDirectory(prefix="qontext-build-") as temporary:
                build_library(self.places[0] / LIBRARY, Path(temporary))
        except NotBuilt as error:
            print(f"qontext: the CPU kernel library was not built: {error}", file=sys.stderr)
            for place in self.places:
                place.mkdir(parents=True, exist_ok=True)
                (place / LIBRARY).unlink(missing_ok=True)
                (place / NOTE).write_text(f"{error}\n")

    def copy_extensions_to_source(self) -> None:
        """The base class removes the old library and then writes the new one: a process that starts meanwhile fails."""
        if (built := self.places[0] / LIBRARY).exists():
            put_in_place(built, self.places[-1] / LIBRARY)


setup(
    ext_modules=[Extension("qontext.native.libqontext", sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative},
)
