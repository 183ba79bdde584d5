"""`python -m dispatcher.pod`: the command of the task container."""

from dispatcher.pod import init

if __name__ == "__main__":
    limits = init.start()  # from here on we are the second process; the first stays as small as it is
    from dispatcher.pod import runner

    runner.run_and_exit(limits)
