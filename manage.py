#!/usr/bin/env python
"""Every command of the project; starts the embedded database and broker first where none is configured."""

import os
import sys

from django.core.management import execute_from_command_line

from config.embedded import start_if_unconfigured

WITHOUT_DATABASE = {"help", "version", "--help", "--version", "makemigrations", "spectacular", "collectstatic"}


def main() -> None:
    """Run one command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if len(sys.argv) > 1 and sys.argv[1] not in WITHOUT_DATABASE:
        start_if_unconfigured(os.environ)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
