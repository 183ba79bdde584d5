"""`podyard completion`: the script with which a shell completes commands and options of `podyard`. Click writes it."""

import click
from click import shell_completion

from routing.cli.session import common_options

SHELLS = {
    "bash": shell_completion.BashComplete,
    "zsh": shell_completion.ZshComplete,
    "fish": shell_completion.FishComplete,
}
VARIABLE = "_PODYARD_COMPLETE"
"""Set by the script when it asks for completions."""


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@common_options
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL, to be read by it at its start.

    \b
    Example:  podyard completion bash > ~/.local/share/bash-completion/completions/podyard
              podyard completion zsh > ~/.zfunc/_podyard      (a folder of $fpath)
              podyard completion fish > ~/.config/fish/completions/podyard.fish
    """
    script = SHELLS[shell](context.find_root().command, {}, "podyard", VARIABLE)
    # Not `source()`: for bash it would start one to ask for its version, which is of no use where it is not at hand.
    click.echo(script.source_template % script.source_vars())
