"""`python -m dispatcher.pod`: the command of the task container."""

from dispatcher.pod import runner

if __name__ == "__main__":
    runner.run_and_exit()
