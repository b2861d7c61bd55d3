"""The outermost app: it wires the others and is imported by none."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """Carries the management commands."""

    name = "config"
