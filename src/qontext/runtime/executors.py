"""Which executor runs a program."""

from ..builder.plan import Program
from .executor import Executor
from .gpu_executor import GpuExecutor
from .step_executor import StepExecutor


def executor_for(program: Program, graphs: bool = True) -> Executor:
    """The executor of a program, by where it was planned to run; `graphs` as for `GpuExecutor`."""
    if program.parts is None:
        return Executor(program)
    return StepExecutor(program, graphs) if any(s.updates for s in program.steps) else GpuExecutor(program, graphs)
