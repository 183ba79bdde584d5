"""What is wrong with the `template` of a queue's rule, asked when the settings are loaded and not at the first pod."""

from pathlib import Path

from dispatcher import errors


def problem(template: str) -> str | None:
    """Why this template cannot be used; None for the name of a shipped one and the path of a file that is right."""
    from dispatcher.manifests import template as pod_template

    try:
        pod_template.load_template(pod_template.resolve(template))
    except errors.InvalidTemplate as error:
        return str(error)
    return None


def is_path(template: str) -> bool:
    """Whether the value is the path of a file, not the name of a shipped template."""
    from dispatcher.manifests import template as pod_template

    try:
        return pod_template.resolve(template) == Path(template)
    except errors.InvalidTemplate:
        return False
