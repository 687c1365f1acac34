"""``longshore django``: Django's commands, for the database of the model server's Django face."""

from __future__ import annotations

import click

__all__ = ["django"]


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def django(arguments: tuple[str, ...]) -> None:
    """Look after the Django face: createsuperuser, create_token, revoke_token, prune_predictions, help."""
    from longshore.serving.django_app.manage import manage

    try:
        manage(arguments)
    except SystemExit as error:
        # a command that failed has said why
        click.get_current_context().exit(error.code if isinstance(error.code, int) else 1)
