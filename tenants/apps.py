"""Who: tenants, their people and keys, and the log of what happened."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Registers the app."""

    name = "tenants"
