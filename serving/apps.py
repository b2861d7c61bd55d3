"""How calls are answered: gateway, encoder, deployments, certificates, rollouts."""

from django.apps import AppConfig


class ServingConfig(AppConfig):
    """Registers the app."""

    name = "serving"
