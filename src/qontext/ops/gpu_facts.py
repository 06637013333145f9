"""The NVIDIA GPUs of this machine, the software that drives them, and whether our kernels can run there."""

import functools
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

LEAST_CAPABILITY = (8, 0)  # bf16 matrix units and asynchronous copies: Ampere and later
LEAST_TRITON = (3, 3)


@dataclass(frozen=True)
class Gpu:
    """One GPU: product name, compute capability, bytes of memory."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclass(frozen=True)
class GpuFacts:
    """What was found.

    torch:   version of torch         cuda: CUDA version that torch was built for, None for a build without CUDA
    driver:  version of the NVIDIA driver, "" when none is loaded
    triton:  version of Triton, "" when it is not installed
    gpus:    what torch can see
    failure: torch's own words when it sees no GPU
    """

    torch: str
    cuda: str | None
    driver: str
    triton: str
    gpus: tuple[Gpu, ...]
    failure: str = ""


def driver_version() -> str:
    """The NVIDIA driver that is loaded, "" when there is none (or the system does not tell)."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            found = re.search(r"\b(\d{3,}(\.\d+)+)\b", file.read())
    except OSError:
        return ""
    return found.group(1) if found else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@functools.cache
def gpu_facts() -> GpuFacts:
    """Looks once a process; starts CUDA when there is a GPU."""
    gpus: tuple[Gpu, ...] = ()
    failure = ""
    if torch.version.cuda is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about drivers; we say it in an error where it matters
            try:
                torch.cuda.init()
                properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
                gpus = tuple(Gpu(p.name, (p.major, p.minor), p.total_memory) for p in properties)
            except (RuntimeError, AssertionError) as error:
                failure = str(error).splitlines()[0]
    return GpuFacts(torch.__version__, torch.version.cuda, driver_version(), _version("triton"), gpus, failure)


def gpu_problem(facts: GpuFacts, index: int = 0) -> str | None:
    """Why GPU number `index` cannot be used, in one sentence with what was found and what to do; None when it can."""
    if facts.cuda is None:
        return f"torch {facts.torch} was built without CUDA; install a CUDA build of torch, or use device='cpu'"
    if not facts.gpus:
        driver = f"NVIDIA driver {facts.driver}" if facts.driver else "no NVIDIA driver is loaded"
        said = f" ({facts.failure})" if facts.failure else ""
        return (
            f"torch {facts.torch} for CUDA {facts.cuda} sees no GPU; {driver}{said}; "
            "install a driver that fits this CUDA version, or use device='cpu'"
        )
    if index >= len(facts.gpus):
        return f"GPU {index} was asked for, this machine has {len(facts.gpus)}; count from 0"
    gpu = facts.gpus[index]
    if gpu.capability < LEAST_CAPABILITY:
        return (
            f"{gpu.name} has compute capability {_dotted(gpu.capability)}, at least {_dotted(LEAST_CAPABILITY)} "
            "(Ampere) is needed; use device='cpu'"
        )
    if not facts.triton:
        return f"Triton is not installed; install triton {_dotted(LEAST_TRITON)} or later, or use device='cpu'"
    if _numbers(facts.triton) < LEAST_TRITON:
        return f"Triton {facts.triton} is installed, at least {_dotted(LEAST_TRITON)} is needed; install a later one"
    return None


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(n) for n in found.group().split(".")) if found else ()
