"""Migrations run as the owner of the tables, whatever the default connection is."""

import argparse

from django.core.management.commands.migrate import Command as Migrate


class Command(Migrate):
    """`migrate`, over the owner's connection unless another is named."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """As Django's, with `owner` as the default database."""
        super().add_arguments(parser)  # type: ignore[arg-type]  # Django hands in its own subclass
        parser.set_defaults(database="owner")
