from django.db import migrations

from tenants.rls import keyed, points_at, wall


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial"), ("ingestion", "0003_walls")]

    operations = [
        wall("training_trainingrun", door=True),
        wall("training_adapter", door=True),
        keyed("training_trainingrun"),
        keyed("training_adapter"),
        points_at("training_trainingrun", "dataset_id", "ingestion_dataset"),
        points_at("training_adapter", "run_id", "training_trainingrun"),
        points_at("training_adapter", "workload_id", "ingestion_workload"),
        points_at("training_adapter", "dataset_id", "ingestion_dataset"),
    ]
