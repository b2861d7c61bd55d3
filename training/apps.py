"""What is learned: training runs and the adapters they make."""

from django.apps import AppConfig


class TrainingConfig(AppConfig):
    """Registers the app."""

    name = "training"
