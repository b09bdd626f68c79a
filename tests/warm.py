"""A process that has loaded what takes seconds to load, and forks for every program that it is told to run.

`tests/conftest.py` starts it and talks to it in lines of JSON. It imports and nothing else, so a program that starts
here starts as one of a fresh interpreter does, less the wait: torch with torch.compile, DeepSpeed and Accelerate cost
6 s of a core.
"""

import importlib
import json
import os
import runpy
import sys
import traceback

LOADED = ["pretrain.__main__", "accelerate", "torch.utils.tensorboard"]
if not os.path.exists("/dev/nvidiactl"):  # it looks for its device when it is imported
    os.environ |= {
        "DS_ACCELERATOR": "cpu",
        "DEEPSPEED_LOG_LEVEL": "warning",
    }  # as triptych.training.engine_deepspeed does
    LOADED += ["deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer"]  # the second loads all of torch.compile


def become(arguments, environment, folder, outputs):
    """Be `python ARGUMENTS`, which are `-m module ...` or `program.py ...`, with files as stdout and stderr."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in zip((0, 1, 2), (os.devnull, *outputs), strict=True):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


def child(job):
    """As `become`, to the end of the process."""
    code = 0
    try:
        become(**job)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
        if code and not isinstance(stopped.code, int):
            print(stopped.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is said at an import is no answer
    for name in LOADED:
        importlib.import_module(name)
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        if "poll" in asked:  # an exit code, or null
            pid, status = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:  # a process id
            answer = os.fork() or child(asked)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
