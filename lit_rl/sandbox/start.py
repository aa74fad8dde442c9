"""The first code of a sandboxed process; its text is given to ``python -c``, and it imports nothing of lit-rl.

It puts limits on itself that cannot be lifted again, reads a program from standard input, says that it is ready, and
becomes that program, for which the rest of the input is left.  Limits are set in here because the kernel counts the
processes of a user by namespace: set outside, they would also count what else that user runs.
"""

import os
import sys

READY = b"\x06"
LIMITS = ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE")


def main() -> None:
    """Take the number of bytes of the program and the limits, in the order of ``LIMITS``, from the command line."""
    import resource  # here, for systems without it have to be able to import this module

    size, *limits = (int(argument) for argument in sys.argv[1:])
    for name, limit in zip(LIMITS, limits, strict=True):
        kind = getattr(resource, name)
        _, most = resource.getrlimit(kind)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (limit, limit))
    program = b""
    while len(program) < size:
        program += os.read(0, size - len(program))
    os.write(1, READY)
    sys.argv[:] = ["program.py"]
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    exec(compile(program, "program.py", "exec", dont_inherit=True), module.__dict__)


if __name__ == "__main__":
    main()
