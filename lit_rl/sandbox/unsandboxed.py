"""Model-written Python with limits but without isolation, for those who accept it."""

import sys

from lit_rl.sandbox.programs import Programs


class Unsandboxed(Programs):
    """Runs programs as ordinary processes of this user: NO isolation of files, network or other processes.

    For machines on which `Bubblewrap` cannot run and that hold nothing of value.  Programs have the limits of
    `Bubblewrap` on time, memory, file size, open files and output, but none on processes, which the kernel counts for
    the whole user; a program that starts another session leaves processes behind.

    Args:
        i_accept_that_model_code_runs_on_this_machine: Has to be true.
        python: Interpreter; None takes ours, without its installed packages.
        output_bytes: Of standard output and of standard error; a program that writes more is killed.

    Raises:
        ValueError: It was not accepted, or programs cannot be run.
    """

    def __init__(
        self,
        *,
        i_accept_that_model_code_runs_on_this_machine: bool = False,
        python: str | None = None,
        output_bytes: int = 65536,
    ):
        super().__init__(output_bytes)
        if i_accept_that_model_code_runs_on_this_machine is not True:
            raise ValueError(
                "Unsandboxed would let a model's code read, write, delete and send whatever this user can; use "
                "lit_rl.sandbox.Bubblewrap, or say i_accept_that_model_code_runs_on_this_machine=True."
            )
        self.python = python or sys.executable
        self.check()

    def command(self, arguments: list[str]) -> list[str]:
        return [self.python, *arguments]

    def processes(self) -> int:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NPROC)
        return most if most != resource.RLIM_INFINITY else sys.maxsize
