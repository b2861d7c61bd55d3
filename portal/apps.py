"""Pages for people; no models and no rules."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Registers the app."""

    name = "portal"
