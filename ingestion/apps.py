"""What is remembered: calls, payloads, workloads, datasets, prices."""

from django.apps import AppConfig


class IngestionConfig(AppConfig):
    """Registers the app."""

    name = "ingestion"
